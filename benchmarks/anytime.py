"""What a study has found after how many seconds of the device, under one scheduler and under another.

FER2013_DIR=… python benchmarks/anytime.py --study fer_small --seconds 1140 --seeds 3
python benchmarks/anytime.py --quick

Each scheduler runs the same study with the same budget of device seconds through the real command: one worker, stores
of its own. The curves are by the clock, from the first trial's beginning: what the service itself takes counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SCHEDULERS = {
    "auto": {"scheduler": "auto", "pruner": "none"},
    "optuna tpe + hyperband": {"scheduler": "optuna", "sampler": "tpe", "pruner": "hyperband"},
}
SHARES = (0.1, 0.25, 0.5, 0.75)
STUDY = """\
from dataclasses import replace

from hpo.loading import load_spec

BUDGET = {{"n_trials": None, "n_epochs": None, "timeout_seconds": {seconds!r}}}
STUDY = replace(load_spec({study!r}), seed={seed!r}, **BUDGET, **{fields!r})
"""


@dataclass(frozen=True)
class Search:
    """One study that was run.

    Attributes:
        seconds: by the clock, from the first trial's beginning to the end of each epoch, ascending.
        best: the best value after each epoch.
        test_accuracy: of the best trial's weights; None where the data have no test split.
    """

    scheduler: str
    seed: int
    seconds: list[float]
    best: list[float]
    n_trials: int
    wall_seconds: float
    test_accuracy: float | None

    def at(self, seconds: float) -> float:
        """The best value after so many seconds; NaN before the first epoch."""
        place = int(np.searchsorted(self.seconds, seconds, side="right"))
        return self.best[place - 1] if place else float("nan")


def main() -> int:
    """Run every scheduler with every seed, then print the curves."""
    options = _parser().parse_args()
    if options.quick:
        options.study, options.seconds, options.seeds = "demo", 20.0, 1
    wanted = [(scheduler, seed) for seed in range(options.seeds) for scheduler in SCHEDULERS]
    folder = options.folder or Path(tempfile.mkdtemp())
    with ThreadPoolExecutor(options.parallel) as pool:
        found = list(pool.map(lambda key: _search(folder, key[0], key[1], options), wanted))
    print("\n".join(_markdown(found, options)))
    if options.json:
        _report(options.json, found)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="the demo's study, twenty seconds, one seed")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--study", default="fer_small", metavar="NAME")
    found.add_argument("--seconds", type=float, default=1_140.0, metavar="S", help="of the device, for each study")
    found.add_argument("--seeds", type=int, default=3, metavar="N")
    found.add_argument("--device", metavar="D")
    found.add_argument("--parallel", type=int, default=1, metavar="N", help="studies at a time; they share the device")
    found.add_argument("--folder", type=Path, metavar="DIR", help="where the studies are kept: run again to go on")
    return found


def _search(folder: Path, scheduler: str, seed: int, options: argparse.Namespace) -> Search:
    place = folder / f"{scheduler.replace(' ', '_')}_{seed}"
    place.mkdir(parents=True, exist_ok=True)
    study = place / "study.py"
    study.write_text(
        STUDY.format(study=options.study, seconds=options.seconds, seed=seed, fields=SCHEDULERS[scheduler])
    )
    command = [sys.executable, "-m", "hpo.run", "--study", study.name]
    if options.device:
        command += ["--device", options.device]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    with (place / "log").open("ab") as out:
        subprocess.run(command, cwd=place, check=True, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": paths})
    wall = time.perf_counter() - began
    seconds, best, n_trials, winner = _curve(place, options.study)
    return Search(scheduler, seed, seconds, best, n_trials, wall, _tested(place, options, winner))


def _curve(place: Path, study: str) -> tuple[list[float], list[float], int, int]:
    """Seconds and the best value after each epoch, how many trials there are, and the best one's number."""
    from mlflow import MlflowClient

    from hpo.loading import load_spec

    metric = load_spec(study).metric
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    epochs: list[tuple[int, float, int]] = []
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id], max_results=10_000)
        if "optuna.trial_number" in run.data.tags
    ]
    for run in runs:
        number = int(run.data.tags["optuna.trial_number"])
        epochs += [(m.timestamp, m.value, number) for m in client.get_metric_history(run.info.run_id, metric)]
    epochs.sort()
    began = min(run.info.start_time for run in runs)
    seconds = [(e[0] - began) / 1_000 for e in epochs]
    best = np.maximum.accumulate([e[1] for e in epochs]).tolist()
    return seconds, best, len(runs), max(epochs, key=lambda e: e[1])[2]


def _tested(place: Path, options: argparse.Namespace, number: int) -> float | None:
    from hpo.loading import load_spec
    from hpo.spec import Context

    trainer = load_spec(options.study).prepare(Context(device=options.device, data=None, threads=1, stop=lambda: False))
    try:
        scores: Mapping[str, float] = trainer.evaluate(place / "trials" / options.study / str(number), "test")
    except ValueError:
        return None
    return float(scores["accuracy"])


def _markdown(found: list[Search], options: argparse.Namespace) -> list[str]:
    lines = [
        f"`{options.study}`, {options.seconds:.0f} device seconds, {options.seeds} seeds: best validation value, mean",
        "(lowest to highest), by the clock after shares of that and at the end; test accuracy of each study's best.",
        "",
        "| scheduler | " + " | ".join(f"{share:.0%}" for share in SHARES) + " | end | trials | test |",
        "|---|" + "---|" * (len(SHARES) + 3),
    ]
    for scheduler in SCHEDULERS:
        mine = [s for s in found if s.scheduler == scheduler]
        cells = [_spread([s.at(share * options.seconds) for s in mine]) for share in SHARES]
        cells.append(_spread([s.best[-1] for s in mine]))
        tested = [s.test_accuracy for s in mine if s.test_accuracy is not None]
        trials = ", ".join(str(s.n_trials) for s in mine)
        lines.append(f"| {scheduler} | {' | '.join(cells)} | {trials} | {_spread(tested) if tested else '-'} |")
    return lines


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _report(path: Path, found: list[Search]) -> None:
    import torch

    from benchmarks.report import write

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    ends = {name: float(np.mean([s.best[-1] for s in found if s.scheduler == name])) for name in SCHEDULERS}
    ratios = {"final.auto_over_hyperband": ends["auto"] / ends["optuna tpe + hyperband"]}
    write(path, [vars(s) for s in found], ratios, ("torch", "optuna"), card=card)


if __name__ == "__main__":
    sys.exit(main())
