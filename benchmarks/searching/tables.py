"""Figures of a finished benchmark: cost to a quality, regret by budget, ranks, with bootstrap intervals over tasks."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.searching.methods import is_variant

Floats = NDArray[np.float64]

TRAININGS = (1, 2, 5, 10, 20)
"""Budgets, in full trainings of the longest trial."""
N_BOOTSTRAP = 2_000
LEAST_TASKS = 5
"""With fewer there is no interval."""


@dataclass(frozen=True)
class Cell:
    """One search: of a method, on a task, with a seed.

    What was found after the budget does not count.

    Attributes:
        epochs: spent when each incumbent was found, ascending.
        regrets: of each incumbent, normalised.
        budget: epochs in all.
        longest: epochs of a full training.
        clock: seconds of training when each incumbent was found.
        seconds: of training in all; 0 where the task does not know.
    """

    method: str
    family: str
    task: str
    seed: int
    epochs: Sequence[float]
    regrets: Sequence[float]
    budget: int
    longest: int
    decision_mean: float
    decision_p95: float
    clock: Sequence[float] = ()
    seconds: float = 0.0

    def regret_at(self, epochs: float) -> float:
        """Of the incumbent when so much was spent; 1, the untrained network's, before there is one."""
        place = int(np.searchsorted(self.epochs, epochs, side="right"))
        return self.regrets[place - 1] if place else 1.0

    def cost_to(self, regret: float) -> float:
        """Epochs until the incumbent was this good and stayed so; the whole budget where it never was (censored)."""
        return self._until(regret, self.epochs, float(self.budget))

    def seconds_to(self, regret: float) -> float:
        """The same in seconds of training; a miss counts as `seconds`."""
        return self._until(regret, self.clock, self.seconds)

    def _until(self, regret: float, spent: Sequence[float], budget: float) -> float:
        cost = budget
        for at, reached in zip(reversed(spent), reversed(self.regrets), strict=True):
            if reached > regret:
                break
            cost = min(at, budget)
        return cost


Cells = Sequence[Cell]


def by_method(cells: Cells) -> dict[str, list[Cell]]:
    """Cells of each method, in order of task and seed."""
    found: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda c: (c.method, c.task, c.seed)):
        found.setdefault(cell.method, []).append(cell)
    return found


def regrets(cells: Cells) -> dict[str, dict[int, float]]:
    """Mean normalised regret: method -> full trainings -> regret."""
    return {
        method: {n: float(np.mean([c.regret_at(n * c.longest) for c in mine])) for n in TRAININGS}
        for method, mine in by_method(cells).items()
    }


def mean_ranks(cells: Cells, trainings: int) -> dict[str, float]:
    """Mean rank of each method over tasks and seeds, 1 the best; equal ones share theirs."""
    from scipy.stats import rankdata

    methods = sorted({c.method for c in cells})
    table: dict[tuple[str, int], dict[str, float]] = {}
    for c in cells:
        table.setdefault((c.task, c.seed), {})[c.method] = c.regret_at(trainings * c.longest)
    whole = [row for row in table.values() if len(row) == len(methods)]
    ranks = np.array([rankdata([row[m] for m in methods]) for row in whole])
    return dict(zip(methods, ranks.mean(0).tolist(), strict=True)) if whole else {}


@dataclass(frozen=True)
class Ratio:
    """Our cost over another's: geometric mean, its 95 % interval over tasks, and the share of searches that missed.

    A miss counts as the whole budget, which flatters whoever misses more: hence the shares.
    """

    mean: float
    low: float
    high: float
    our_misses: float
    other_misses: float


def cost_ratio(
    cells: Cells, ours: str, other: str, cost: Callable[[Cell, float], float] = Cell.cost_to
) -> Ratio | None:
    """Our cost over another's to reach what the other ends with: task by task the mean of its final regrets.

    A miss costs what a whole search costs; in seconds, where searches of as many epochs differ, what the longest does.
    """
    methods = by_method(cells)
    if not {ours, other} <= methods.keys():
        return None
    logs, missed = [], np.zeros(2)
    for task in _tasks(cells):
        target = float(np.mean([c.regret_at(c.budget) for c in methods[other] if c.task == task]))
        mine = [_as_long(methods[m], methods, task) for m in (ours, other)]
        means = [float(np.mean([math.log(cost(c, target)) for c in them])) for them in mine]
        logs.append(means[0] - means[1])
        missed += [np.mean([c.regret_at(c.budget) > target for c in them]) for them in mine]
    values = np.array(logs)
    low, high = np.exp(_interval(values))
    shares = missed / len(logs)
    return Ratio(float(np.exp(values.mean())), float(low), float(high), float(shares[0]), float(shares[1]))


def _as_long(cells: Cells, methods: Mapping[str, Cells], task: str) -> list[Cell]:
    """A method's cells of a task, each as long in seconds as the longest of any method's with that seed."""
    longest: dict[int, float] = {}
    for them in methods.values():
        for c in them:
            if c.task == task:
                longest[c.seed] = max(longest.get(c.seed, 0.0), c.seconds)
    return [replace(c, seconds=longest[c.seed]) for c in cells if c.task == task]


def regret_difference(cells: Cells, ours: str, other: str, trainings: int) -> tuple[float, float, float]:
    """Our mean regret less another's, and a 95 % interval, paired over tasks."""
    methods = by_method(cells)
    means = [
        {t: np.mean([c.regret_at(trainings * c.longest) for c in methods[m] if c.task == t]) for t in _tasks(cells)}
        for m in (ours, other)
    ]
    values = np.array([means[0][t] - means[1][t] for t in _tasks(cells)])
    return float(values.mean()), *_interval(values)


def _tasks(cells: Cells) -> list[str]:
    return sorted({c.task for c in cells})


def _interval(values: Floats) -> tuple[float, float]:
    """95 % of a mean over tasks by the bootstrap-t (Efron, Tibshirani 1993, 12.5); unbounded below five tasks."""
    n = len(values)
    if n < LEAST_TASKS:
        return -math.inf, math.inf
    rng = np.random.default_rng(0)
    drawn = rng.choice(values, size=(N_BOOTSTRAP, n))
    errors = drawn.std(1, ddof=1) / math.sqrt(n)
    usable = errors > 0
    t = (drawn.mean(1)[usable] - values.mean()) / errors[usable]
    error = values.std(ddof=1) / math.sqrt(n)
    if not len(t):
        return float(values.mean()), float(values.mean())
    low, high = np.quantile(t, [0.975, 0.025])
    return float(values.mean() - low * error), float(values.mean() - high * error)


def markdown(cells: Cells, ours: str) -> Iterator[str]:
    """The tables, family by family, as lines of Markdown."""
    for family in sorted({c.family for c in cells}):
        mine = [c for c in cells if c.family == family and not is_variant(c.method)]
        n_seeds = len({c.seed for c in mine})
        yield f"### {family}: {len(_tasks(mine))} tasks, {n_seeds} seeds\n"
        yield "Mean regret in percent of the way from untrained to best, after so many full trainings;"
        yield "cost in epochs (geometric mean, a miss counts as the budget) to come within 5 % and 1 % of the best;"
        yield "seconds a decision. On tables ours chooses among the rows themselves; others' proposals are taken for"
        yield "the nearest row that is left, and they are told so, but for SMAC3."
        yield ""
        timed = any(c.seconds for c in mine)
        named = ["rank at 2", "to 5 %", "to 1 %", *(["seconds to 5 %", "to 1 %"] if timed else []), "mean s", "p95 s"]
        yield "| method | " + " | ".join([*map(str, TRAININGS), *named]) + " |"
        yield "|---|" + "---|" * (len(TRAININGS) + len(named))
        ranks, table = mean_ranks(mine, 2), regrets(mine)
        for method in sorted(table, key=lambda m: table[m][TRAININGS[-1]]):
            own = by_method(mine)[method]
            kinds = (Cell.cost_to, Cell.seconds_to) if timed else (Cell.cost_to,)
            alike = [c for task in _tasks(mine) for c in _as_long(own, by_method(mine), task)]
            costs = [np.exp(np.mean([math.log(cost(c, p)) for c in alike])) for cost in kinds for p in (0.05, 0.01)]
            row = [f"{100 * table[method][n]:.2f}" for n in TRAININGS]
            row += [f"{ranks.get(method, math.nan):.2f}", *(f"{c:.0f}" for c in costs)]
            row += [f"{np.mean([c.decision_mean for c in own]):.3f}", f"{np.mean([c.decision_p95 for c in own]):.3f}"]
            yield f"| {'**' + method + '**' if method == ours else method} | " + " | ".join(row) + " |"
        yield ""
        yield from _differences(mine, ours)
        yield from _costs(mine, ours)
        yield from _variants([c for c in cells if c.family == family])


def _costs(cells: Cells, ours: str) -> Iterator[str]:
    yield "Our epochs over another's to reach what it ends with (95 % interval over tasks; searches that never did):"
    yield ""
    for other in sorted({c.method for c in cells} - {ours}):
        if ratio := cost_ratio(cells, ours, other):
            line = f"- {other}: {ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]; "
            line += f"ours {ratio.our_misses:.0%}, theirs {ratio.other_misses:.0%}"
            if any(c.seconds for c in cells) and (timed := cost_ratio(cells, ours, other, Cell.seconds_to)):
                line += f"; in seconds {timed.mean:.2f} [{timed.low:.2f}, {timed.high:.2f}]"
            yield line
    yield ""


def _variants(cells: Cells) -> Iterator[str]:
    """Each variant below the method itself, on the seeds that both have."""
    methods = by_method(cells)
    pairs = [(m, m.rsplit(",", 1)[0]) for m in sorted(methods) if is_variant(m)]
    pairs = [(m, base) for m, base in pairs if base in methods]
    if not pairs:
        return
    timed = any(c.seconds for c in cells)
    named = [*map(str, TRAININGS), *(["seconds to 5 %", "to 1 %"] if timed else [])]
    yield "Variants: mean regret in percent after so many full trainings.\n"
    yield "| method | seeds | " + " | ".join(named) + " |"
    yield "|---|---|" + "---|" * len(named)
    for variant, base in pairs:
        seeds = {c.seed for c in methods[variant]} & {c.seed for c in methods[base]}
        for method in (base, variant):
            alike = [c for task in _tasks(cells) for c in _as_long(methods[method], methods, task)]
            mine = [c for c in alike if c.seed in seeds]
            row = [f"{100 * np.mean([c.regret_at(n * c.longest) for c in mine]):.2f}" for n in TRAININGS]
            if timed:
                row += [f"{np.exp(np.mean([math.log(c.seconds_to(p)) for c in mine])):.0f}" for p in (0.05, 0.01)]
            yield f"| {method} | {len(seeds)} | " + " | ".join(row) + " |"
    yield ""


def draw(cells: Cells, ours: str, family: str, path: Path) -> None:
    """Mean regret by what was spent, with 95 % bands over tasks, of each method."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"].colors[::2] + colormaps["tab20"].colors[1::2])  # type: ignore[attr-defined]
    mine = [c for c in cells if c.family == family and not is_variant(c.method)]
    longest = mine[0].longest
    spent = np.unique(np.geomspace(longest / 10, 20 * longest, 80).round())
    methods = by_method(mine)
    for method in sorted(methods, key=lambda m: (m != ours, m)):
        by_task = {t: [c for c in methods[method] if c.task == t] for t in _tasks(mine)}
        table = np.array([[np.mean([c.regret_at(s) for c in them]) for s in spent] for them in by_task.values()])
        mean, error = 100 * table.mean(0), 196 * table.std(0, ddof=1) / math.sqrt(len(table))
        (line,) = axes.plot(spent / longest, mean, label=method, linewidth=3 if method == ours else 1.2)
        axes.fill_between(spent / longest, mean - error, mean + error, color=line.get_color(), alpha=0.06, linewidth=0)
    axes.set(xscale="log", xlabel="full trainings spent", ylabel="mean regret, percent", ylim=(0, 100), title=family)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _differences(cells: Cells, ours: str) -> Iterator[str]:
    table = regrets(cells)
    if ours not in table or len(table) == 1:
        return
    yield "Ours less the best other, in percent, with a 95 % interval paired over tasks:\n"
    for n in TRAININGS:
        best = min((m for m in table if m != ours), key=lambda m: table[m][n])
        mean, low, high = regret_difference(cells, ours, best, n)
        yield f"- {n} full trainings: {100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] against {best}"
    yield ""
