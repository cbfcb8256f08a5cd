"""What a search finds by what it has spent, ours beside others, on recorded learning curves.

python benchmarks/search.py --quick
HPO_CURVES_DIR=… python benchmarks/search.py --seeds 20 --json search.json

Peers that are not installed are left out: `pip install -r benchmarks/requirements.txt`. Resumable by cell (task, seed,
method): finished ones stand in `--cells`, and only those of the same code count.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # one process a core is what fills the machine

if TYPE_CHECKING:
    from benchmarks.searching.methods import Method
    from benchmarks.searching.tables import Cell
    from benchmarks.searching.tasks import Task

OURS = "auto"
ASHA = "promoting asha + tpe"
FULL_TRAININGS = 20
PACKAGES = ("optuna", "numpy", "scipy", "syne-tune", "smac", "ray", "onnxruntime")
QUICK = {
    "taskset": ("imdb_patch32_GRU64_avg_bs128",), "lcbench": ("167168", "189865"), "faces": (),
    "closed_form": ("smooth", "flat", "crossing"),
}  # fmt: skip


def methods() -> "dict[str, Method]":
    """Every method that can run here, by name."""
    from benchmarks.searching.fidelities import fidelity_peers
    from benchmarks.searching.methods import BY_SECONDS, NO_CHECKPOINTS, doubling, ours, screen
    from benchmarks.searching.peers import peers

    return {
        OURS: ours("auto"),
        f"{OURS}{BY_SECONDS}": ours("auto", step_cost="seconds"),
        ASHA: ours("asha"),
        **peers(),
        **fidelity_peers(),
        f"{OURS}{NO_CHECKPOINTS}": ours("auto", checkpoints=False),
        f"{ASHA}{NO_CHECKPOINTS}": ours("asha", checkpoints=False),
        "one-epoch screen": screen(16),
        "successive doubling": doubling(16),
    }


def main() -> int:
    """Run what is missing, then print the tables."""
    options = _parser().parse_args()
    folder = os.environ.get("HPO_CURVES_DIR")
    names = [m for m in methods() if not options.methods or m in options.methods]
    if unknown := set(options.methods or ()) - set(names):
        sys.stderr.write(f"no method {', '.join(sorted(unknown))}; there are {', '.join(methods())}\n")
        return 2
    if options.quick:
        names = [n for n in names if n in {OURS, ASHA} or (n.startswith("optuna") and n != "optuna gp")]
    tasks = _tasks(Path(folder) if folder else None, quick=options.quick, held_out=options.held_out)
    seeds = range(min(5, options.seeds) if options.quick else options.seeds)
    wanted = [(family, task, seed, name) for seed in seeds for family, task in tasks for name in names]
    done = _run(wanted, options.cells, folder, options)
    cells = [done[key] for key in wanted]
    from benchmarks.searching.tables import markdown

    print("\n".join(markdown(cells, OURS)))
    ratios = _ratios(cells)
    print("\n".join(f"{name}: {value:.3f}" for name, value in ratios.items()))
    if options.json:
        from benchmarks.report import write

        write(options.json, [vars(c) for c in cells], ratios, PACKAGES)
    if options.plot:
        from benchmarks.searching.tables import draw

        options.plot.mkdir(parents=True, exist_ok=True)
        for family in sorted({c.family for c in cells}):
            draw(cells, OURS, family, options.plot / f"search_{family}.png")
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="three tasks, five seeds, the main peers: five minutes")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--plot", type=Path, metavar="DIR", help="draw regret by cost there, a picture a family")
    found.add_argument("--held-out", action="store_true", help="the LCBench tasks that no setting was chosen on")
    found.add_argument("--seeds", type=int, default=20, metavar="N")
    found.add_argument("--methods", nargs="*", metavar="NAME", help="only these")
    found.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    found.add_argument("--cells", type=Path, default=ROOT / "benchmarks" / ".cells", metavar="DIR")
    return found


def _tasks(folder: Path | None, *, quick: bool, held_out: bool) -> list[tuple[str, str]]:
    from benchmarks.searching.tasks import tasks_in

    found = [(t.family, t.name) for t in tasks_in(folder, held_out=held_out)]
    return [(family, name) for family, name in found if not quick or name in QUICK[family]]


Key = tuple[str, str, int, str]


def _run(wanted: list[Key], folder: Path, curves: str | None, options: argparse.Namespace) -> "dict[Key, Cell]":
    from multiprocessing import get_context

    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_code()}.jsonl"
    done = {key: cell for key, cell in _kept(file) if key in set(wanted)}
    missing = [key for key in wanted if key not in done]
    with (
        file.open("a") as out,
        get_context("spawn").Pool(options.processes, _begin, (curves, options.held_out)) as pool,
    ):
        for key, cell in track(pool.imap_unordered(_cell, missing), "searching", total=len(missing)):
            done[key] = cell
            out.write(json.dumps(vars(cell)) + "\n")
            out.flush()
    return done


def _code() -> str:
    """A digest of all that decides a cell's outcome."""
    from benchmarks.report import installed

    files = [*sorted((ROOT / "hpo").rglob("*.py")), *sorted((ROOT / "benchmarks" / "searching").glob("*.py"))]
    parts = [f.read_bytes() for f in [*files, Path(__file__)] if _decides(f)]
    parts += [f"{p}=={installed(p)}".encode() for p in PACKAGES]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _decides(file: Path) -> bool:
    if file.name == "tables.py":
        return False
    return file.parent.name != "hpo" or file.name in {"space.py", "draws.py", "coordinates.py", "seeds.py", "spec.py"}


def _kept(file: Path) -> "Iterator[tuple[Key, Cell]]":
    from benchmarks.searching.tables import Cell

    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            cell = Cell(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut off by a kill
        yield (cell.family, cell.task, cell.seed, cell.method), cell


_state: dict[str, Any] = {}
"""A process's tasks and methods: made once each, not for every cell."""


def _begin(curves: str | None, held_out: bool) -> None:  # noqa: FBT001  a pool passes it by place
    import logging
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from benchmarks.searching.tasks import tasks_in

    _state["tasks"] = {(t.family, t.name): t for t in tasks_in(Path(curves) if curves else None, held_out=held_out)}
    _state["methods"] = methods()


def _cell(key: Key) -> "tuple[Key, Cell]":
    import numpy as np

    from benchmarks.searching.tables import Cell

    family, name, seed, method = key
    task: Task = _state["tasks"][family, name]
    budget = FULL_TRAININGS * task.max_epochs
    trace = _state["methods"][method](task, seed, budget)
    seconds = np.array(trace.decision_seconds or [0.0])
    n = sum(e <= budget for e in trace.epochs)
    return key, Cell(
        method, family, name, seed, trace.epochs[:n], [task.regret(s) for s in trace.scored[:n]], budget,
        task.max_epochs, float(seconds.mean()), float(np.quantile(seconds, 0.95)), trace.clock[:n], trace.seconds,
    )  # fmt: skip


def _ratios(cells: "list[Cell]") -> dict[str, float]:
    from benchmarks.searching.methods import is_variant
    from benchmarks.searching.peers import HYPERBAND
    from benchmarks.searching.tables import Cell, by_method, cost_ratio, regrets

    found: dict[str, float] = {}
    cells = [c for c in cells if not is_variant(c.method)]
    for family in sorted({c.family for c in cells}):
        mine = [c for c in cells if c.family == family]
        table = regrets(mine)
        if hyperband := cost_ratio(mine, OURS, HYPERBAND):
            found[f"epochs_to_hyperband_final.{family}"] = hyperband.mean
        if any(c.seconds for c in mine) and (in_seconds := cost_ratio(mine, OURS, HYPERBAND, Cell.seconds_to)):
            found[f"seconds_to_hyperband_final.{family}"] = in_seconds.mean
        others = [m for m in table if m != OURS]
        best = min(others, key=lambda m: table[m][20], default=None)
        if best is not None and (ratio := cost_ratio(mine, OURS, best)):
            found[f"epochs_to_best_peer_final.{family}"] = ratio.mean
    table = regrets(cells)
    if OURS in table:
        found["regret_at_2.rank"] = float(1 + sum(row[2] < table[OURS][2] for row in table.values()))
        own = by_method(cells)[OURS]
        found["decision_seconds.mean"] = sum(c.decision_mean for c in own) / len(own)
        found["decision_seconds.p95"] = sum(c.decision_p95 for c in own) / len(own)
    return found


if __name__ == "__main__":
    sys.exit(main())
