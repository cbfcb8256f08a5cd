"""A picture of a search: which trial got which epochs when, and what the model had expected of them."""

import io
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial
from scipy.special import ndtri

from hpo.schedulers.protocol import Step, steps_of, trial_value
from hpo.spec import StudySpec


def draw(spec: StudySpec, trials: Sequence[FrozenTrial]) -> bytes | None:
    """The picture as PNG; None where nothing was trained.

    Args:
        spec: of the study.
        trials: all, in the order of their numbers.
    """
    steps = sorted((s for t in trials for s in steps_of(t) if t.intermediate_values), key=lambda s: s.order)
    if not steps:
        return None
    expected = [(s, standing) for s, standing in _standings(spec, trials, steps) if "mean" in s.why]
    figure = Figure(figsize=(11, 7 if expected else 5), layout="constrained")
    rows = figure.subplots(2, 1, height_ratios=(3, 2)) if expected else [figure.subplots()]
    _gantt(figure, rows[0], spec, trials, steps)
    if expected:
        _expectations(rows[1], expected)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _came(spec: StudySpec, trial: FrozenTrial, step: Step) -> float | None:
    """The value that a trial had when a step was over; None where it never had the step's epochs."""
    whole = step.until is None or len(trial.intermediate_values) >= step.until
    return trial_value(spec, trial, step.until) if whole else None


def _gantt(figure: Figure, axes: Axes, spec: StudySpec, trials: Sequence[FrozenTrial], steps: Sequence[Step]) -> None:
    values = [v for t in trials for v in t.intermediate_values.values()]
    colours = ScalarMappable(Normalize(min(values), max(values)), "viridis")
    spent, best, bests = 0, -np.inf, [(0.0, np.nan)]
    sign = spec.sign
    for step in steps:
        trial = trials[step.number]
        seen = sorted(trial.intermediate_values.items())[step.start : step.until]
        if not seen:
            continue
        shown = [value for _, value in seen]
        spans = [(spent + i, 1) for i in range(len(shown))]
        axes.broken_barh(spans, (step.number - 0.5, 1.0), facecolors=colours.to_rgba(np.array(shown)))
        for value in shown:
            spent += 1
            if sign * value > best:
                best = sign * value
                bests.append((float(spent), value))
    axes.set_xlabel("epochs spent by the study")
    axes.set_ylabel("trial")
    axes.set_xlim(0, spent)
    axes.set_ylim(max(s.number for s in steps) + 0.5, -0.5)
    axes.set_title(
        f"{spec.name}: who got which epochs; best {spec.metric} {sign * best:.4f} after {bests[-1][0]:.0f} epochs"
    )
    figure.colorbar(colours, ax=axes, label=spec.metric)


def _standings(spec: StudySpec, trials: Sequence[FrozenTrial], steps: Sequence[Step]) -> Iterator[tuple[Step, float]]:
    """What each step gave: its value's rank among those of all steps so far, as a normal quantile."""
    sign = spec.sign
    known: list[float] = []
    for step in steps:
        came = _came(spec, trials[step.number], step)
        if came is not None:
            lower, upper = bisect_left(known, sign * came), bisect_right(known, sign * came)
            known.insert(upper, sign * came)
            yield step, float(ndtri(((lower + upper) / 2 + 0.5) / len(known)))  # among equals the middle


def _expectations(axes: Axes, expected: Sequence[tuple[Step, float]]) -> None:
    """What the model expected of each step, and what came."""
    order = [step.order for step, _ in expected]
    mean, spread = (np.array([step.why[name] for step, _ in expected]) for name in ("mean", "spread"))
    axes.errorbar(order, mean, yerr=spread, fmt=".", color="0.5", ecolor="0.8", label="expected, with its spread")
    axes.plot(order, [standing for _, standing in expected], ".", color="tab:blue", label="came")
    axes.set_xlabel("decision")
    axes.set_ylabel("rank, as a normal quantile")
    axes.legend(loc="lower right")
