"""Hours of kills and outages: four workers, one killed each minute, MLflow away for one minute in ten.

python -m tests.faults.soak --hours 2 --out soak.png

What it draws: memory, open files and threads of the command and of its workers, ten seconds apart. At its end the study
is let run out, and checked as every other of the campaign: no trial lost, no epoch twice in a store, all delivered.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

import psutil

from hpo.worker import STOPPED
from tests.end_to_end.stores import run, runs, start, trials
from tests.end_to_end.test_outage import free_port, mlflow_server
from tests.hpo.toy import witnessed, write_toy

SEED, EVERY, N_WORKERS, N_EPOCHS, PAUSE = 20_261_128, 10.0, 4, 60, 1.0
FLAT = 0.05
"""So much growth is none."""
SETTLING = 600.0
"""Seconds until which figures may grow."""

Sample = dict[str, float]


def main() -> int:
    """Run it; 1 where something did not hold."""
    options = _parser().parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hpo-soak-", ignore_cleanup_errors=True) as place,
        options.out.with_suffix(".jsonl").open("w") as out,
    ):
        samples, n_kills, faults = _soak(Path(place), options.hours * 3600, out)
    _draw(samples, options.out)
    for name, growth in _growths(samples):
        sys.stdout.write(f"{name}: {growth:+.1%} from the first ten minutes' end to the end\n")
        if growth > FLAT:
            faults.append(f"{name} grew by more than {FLAT:.0%}")
    sys.stdout.write(f"{n_kills} kills, {len(faults)} faults\n" + "".join(f"{fault}\n" for fault in faults))
    return bool(faults)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--hours", type=float, default=2.0, metavar="H")
    found.add_argument("--out", type=Path, default=Path("soak.png"), metavar="PNG")
    return found


def _soak(folder: Path, seconds: float, out: TextIO) -> tuple[list[Sample], int, list[str]]:
    """Run it in a folder, each sample a line of `out`; gives samples, kills and faults."""
    served = folder / "server"
    served.mkdir()
    port, study = free_port(), write_toy(folder, trials=100_000, epochs=N_EPOCHS, pause=PAUSE)
    args = ("--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}", "--workers", str(N_WORKERS))
    samples: list[Sample] = []
    n_kills, moments, began = 0, random.Random(SEED), time.monotonic()
    with ExitStack() as server:
        server.enter_context(mlflow_server(served, port))
        process, is_up, now = start(folder, *args), True, 0.0
        try:
            while now < seconds and process.poll() is None:
                time.sleep(EVERY)
                now = time.monotonic() - began
                samples.append({"seconds": now, "server": float(is_up), **_sample(process)})
                out.write(json.dumps(samples[-1]) + "\n")
                out.flush()
                if now >= 60 * (n_kills + 1):
                    n_kills += _kill_one(process, moments)
                away = now % 600 >= 540
                if away and is_up:
                    server.close()
                elif not away and not is_up:
                    server.enter_context(mlflow_server(served, port))
                is_up = not away
            process.terminate()
            if (code := process.wait(60)) != STOPPED:
                return samples, n_kills, [f"the command ended with {code} after {now:.0f} s"]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if not is_up:
            server.enter_context(mlflow_server(served, port))
        n_trials = len(trials(folder, "toy"))
        done = run(folder, *args, "--trials", str(n_trials))
    return samples, n_kills, list(_faults(folder, served, n_trials, n_kills, done))


def _sample(process: "subprocess.Popen[bytes]") -> Sample:
    """Of the command, and of its workers together."""
    found: Sample = collections.defaultdict(float)
    with suppress(psutil.Error):
        command = psutil.Process(process.pid)
        for one in (command, *command.children(recursive=True)):
            with suppress(psutil.Error):
                who = "command" if one == command else "workers"
                found[f"{who} memory, MB"] += one.memory_info().rss / 1e6
                found[f"{who} files"] += one.num_fds()
                found[f"{who} threads"] += one.num_threads()
    return dict(found)


def _kill_one(process: "subprocess.Popen[bytes]", moments: random.Random) -> int:
    """Kill a worker; gives how many were killed."""
    with suppress(psutil.Error, IndexError):  # it may end meanwhile: another one at the next sample
        workers = [p for p in psutil.Process(process.pid).children() if "hpo.worker" in " ".join(p.cmdline())]
        moments.choice(workers).kill()
        return 1
    return 0


def _faults(
    folder: Path, served: Path, n_trials: int, n_kills: int, done: "subprocess.CompletedProcess[str]"
) -> Iterator[str]:
    if done.returncode:
        yield f"the last run ended with {done.returncode}: {done.stderr[-1000:]}"
    states = collections.Counter(trial.state.name for trial in trials(folder, "toy"))
    if states != {"COMPLETE": n_trials}:
        yield f"of {n_trials} trials: {dict(states)}"
    trained = collections.Counter(witnessed(folder))
    if len(trained) != n_trials * N_EPOCHS:
        yield f"{len(trained)} epochs, not {n_trials * N_EPOCHS}"
    if (redone := trained.total() - len(trained)) > n_kills + N_WORKERS:
        yield f"{redone} epochs trained again after {n_kills} kills"
    tracked = runs(served, "toy")  # which refuses two runs of one trial
    for trial in trials(folder, "toy"):
        each, points = tracked[str(trial.number)]
        if points["score"] != sorted(trial.intermediate_values.items()) or each.info.status != "FINISHED":
            yield f"trial {trial.number}: MLflow has {len(points['score'])} points, state {each.info.status}"


def _growths(samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    """How much each figure grew: the median of the last ten minutes over that of ten after the first ten."""
    end = samples[-1]["seconds"]
    names = sorted({name for sample in samples for name in sample} - {"seconds", "server"})
    for name in names:
        early = [s[name] for s in samples if name in s and SETTLING <= s["seconds"] < 2 * SETTLING]
        late = [s[name] for s in samples if name in s and s["seconds"] >= end - SETTLING]
        if early and late:
            yield name, sorted(late)[len(late) // 2] / sorted(early)[len(early) // 2] - 1


def _draw(samples: Sequence[Sample], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    hours = [sample["seconds"] / 3600 for sample in samples]
    for axis, what in zip(axes, ("memory, MB", "files", "threads"), strict=True):
        for who in ("command", "workers"):
            axis.plot(hours, [sample.get(f"{who} {what}", float("nan")) for sample in samples], label=who)
        away: list[Any] = [not sample["server"] for sample in samples]
        axis.fill_between(hours, 0, 1, where=away, transform=axis.get_xaxis_transform(), color="0.9", label="no MLflow")
        axis.set_ylabel(what)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    axes[-1].set_xlabel("hours")
    figure.savefig(out)


if __name__ == "__main__":
    sys.exit(main())
