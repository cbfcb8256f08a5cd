"""What it costs a search that a sampler sees a bounded part of a long history (`StudySpec.sampler_trials`).

python benchmarks/bounded.py --json bounded.json

TPE by our own asks on three landscapes of four numbers and a choice, with noise: smooth, with many local optima, and
with an optimum that lies elsewhere for each choice. Each search twice from the same seed: with all trials, and with
the bound, which begins to matter after 1,000. Printed: the true regret of the best trial seen, medians over the seeds,
and how often the bounded search was the better one.
"""

import argparse
import copy
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NOISE = 0.01
BOUND = 300
"""The default of `StudySpec.sampler_trials`."""
NAMES = ("a", "b", "c", "d")
KINDS = ("x", "y", "z")


def suggest(trial: Any) -> dict[str, Any]:
    """Four numbers and a choice."""
    numbers = {name: trial.suggest_float(name, 0.0, 1.0) for name in NAMES}
    return {**numbers, "kind": trial.suggest_categorical("kind", KINDS)}


def smooth(p: dict[str, Any]) -> float:
    """A bowl whose axes hang together; its best is 0."""
    x = np.array([p[name] for name in NAMES]) - np.array([0.2, 0.7, 0.4, 0.55])
    return float(x @ x + 2 * (x[0] + x[1]) ** 2 + 0.1 * KINDS.index(p["kind"]))


def rugged(p: dict[str, Any]) -> float:
    """Rastrigin's function, of five waves a side; its best is 0."""
    x = np.array([p[name] for name in NAMES]) - 0.37
    return float(np.mean(25 * x**2 + 1 - np.cos(10 * math.pi * x)) + 0.1 * KINDS.index(p["kind"]))


def split(p: dict[str, Any]) -> float:
    """A narrow bowl for each choice, elsewhere and as deep but for one; its best is 0."""
    centre = {"x": 0.15, "y": 0.5, "z": 0.85}[p["kind"]]
    x = np.array([p[name] for name in NAMES]) - centre
    return float(1 - np.exp(-8 * x @ x) + (0.05 if p["kind"] != "z" else 0.0))


LANDSCAPES: dict[str, Callable[[dict[str, Any]], float]] = {"smooth": smooth, "rugged": rugged, "split": split}


def search(landscape: str, limit: int | None, n: int, at: list[int], seed: int) -> list[float]:
    """The true regret of the best trial seen after so many trials."""
    from hpo.schedulers.proposals import propose
    from hpo.schedulers.protocol import History
    from hpo.spec import StudySpec

    spec = StudySpec(
        name="bounded", suggest=suggest, prepare=lambda _: None, metric="v", direction="minimize", n_trials=None,  # type: ignore[arg-type,return-value]
        seed=seed, sampler_trials=limit,
    )  # fmt: skip
    noise, trials, regrets = np.random.default_rng(seed), list[FrozenTrial](), []
    best = (math.inf, math.inf)
    for number in range(n):
        started = propose(spec, History(spec, None, trials))
        assert started is not None
        made = started.suggested
        regret = LANDSCAPES[landscape](dict(made.params))
        seen = regret + NOISE * float(noise.standard_normal())
        best = min(best, (seen, regret))
        trial = create_trial(
            state=TrialState.COMPLETE, value=seen, params=dict(made.suggested), distributions=dict(made.distributions),
            system_attrs=copy.copy(dict(made.system_attrs)),
        )  # fmt: skip
        trial.number = number
        trials.append(trial)
        if number + 1 in at:
            regrets.append(best[1])
    return regrets


def main() -> int:
    """Search, print, and write what was found."""
    options = _parser().parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds, n = (2, 1_200) if options.quick else (options.seeds, options.trials)
    at = sorted({n, *(each for each in (1_000, 1_500, 2_000, 3_000) if each <= n)})
    cells: list[tuple[str, int | None, int]] = [
        (name, limit, seed) for name in LANDSCAPES for seed in range(seeds) for limit in (None, BOUND)
    ]
    with ProcessPoolExecutor(options.processes) as processes:
        found = dict(zip(cells, processes.map(partial(_cell, n=n, at=at), cells), strict=True))
    rows = [
        {"landscape": name, "limit": limit, "seed": seed, "regrets": found[name, limit, seed]}
        for name, limit, seed in cells
    ]
    print(f"sampler_trials={BOUND} beside all, {seeds} seeds; true regret after {', '.join(map(str, at))} trials")
    ratios = dict(_printed(found, seeds, at))
    if options.json:
        from benchmarks.report import write

        write(options.json, rows, ratios, ("optuna",), seeds=seeds, trials=n, at=at)
    return 0


def _cell(cell: tuple[str, int | None, int], *, n: int, at: list[int]) -> list[float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, limit, seed = cell
    return search(name, limit, n, at, seed)


def _printed(
    found: dict[tuple[str, int | None, int], list[float]], seeds: int, at: list[int]
) -> Iterator[tuple[str, float]]:
    for name in LANDSCAPES:
        for column, n in enumerate(at):
            everything = [found[name, None, seed][column] for seed in range(seeds)]
            bounded = [found[name, BOUND, seed][column] for seed in range(seeds)]
            wins = sum(b < a for a, b in zip(everything, bounded, strict=True))
            ties = sum(b == a for a, b in zip(everything, bounded, strict=True))
            a, b = statistics.median(everything), statistics.median(bounded)
            print(f"{name:7s} {n:6,d}  all {a:.4f}, bounded {b:.4f}; bounded better {wins}, equal {ties} of {seeds}")
            yield f"{name}.{n}.bounded_over_all", b / a if a else 1.0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="two seeds, 1,200 trials")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--seeds", type=int, default=6, metavar="N")
    found.add_argument("--trials", type=int, default=3_000, metavar="N")
    found.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N")
    return found


if __name__ == "__main__":
    sys.exit(main())
