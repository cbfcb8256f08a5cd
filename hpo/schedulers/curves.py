"""What trials have shown, as a model of their curves takes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial
from scipy.special import ndtri

from hpo.coordinates import Floats
from hpo.schedulers.protocol import has_diverged
from hpo.schedulers.surrogate import Rows
from hpo.spec import StudySpec

ROWS_A_TRIAL = 3
BEST_SHARE, OTHERS_SHARE = 0.5, 0.25
"""Of the rows that a model gets: the last ones of the best curves, of the others evenly, and the rest their past."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a trial has shown: values, signed so that more is better, best so far, by number of epochs from 1."""

    trial: FrozenTrial
    values: Floats
    diverged: bool
    horizon: int

    @property
    def n_epochs(self) -> int:
        """How many it has."""
        return len(self.values)


def curve_of(spec: StudySpec, trial: FrozenTrial, horizon: int) -> Curve:
    """A trial's curve."""
    found = spec.sign * np.array([v for _, v in sorted(trial.intermediate_values.items())], dtype=float)
    found = np.where(np.isfinite(found), found, -math.inf)
    values = found if spec.value == "last" else np.maximum.accumulate(found) if len(found) else found
    return Curve(trial, values, has_diverged(trial), horizon)


def rungs(horizon: int) -> list[int]:
    """1, 2, 4, … and the horizon itself; one before it that would be left with a few epochs to go is left out."""
    below = [1 << power for power in range(horizon.bit_length()) if (1 << power) * 4 < horizon * 3]
    return [*below, horizon]


def relative_time(epochs: Floats, longest: int) -> Floats:
    """log(epochs) / log(longest): 0 after the first epoch, 1 at the end."""
    times: Floats = np.log(np.maximum(epochs, 1.0)) / math.log(max(2, longest))
    return times


def observations(
    curves: Sequence[Curve], points: Floats, longest: int, limits: Mapping[int, int] | None = None
) -> Rows | None:
    """Each curve at its rungs, its value the normal quantile of its rank among all; None where nothing was seen.

    A curve that diverged has one more observation after its last epoch, the worst of all.

    Args:
        curves: of the trials.
        points: float64 [n, d], their configurations.
        longest: epochs of the longest trial.
        limits: by trial number, how many epochs of it are known; all of every trial by default.
    """
    owners: list[int] = []
    epochs: list[int] = []
    values: list[float] = []
    for i, curve in enumerate(curves):
        limit = curve.n_epochs if limits is None else min(curve.n_epochs, limits.get(curve.trial.number, 0))
        seen = [r for r in rungs(curve.horizon) if r <= limit]
        if limit and limit not in seen:
            seen.append(limit)
        owners += [i] * len(seen)
        epochs += seen
        values += [float(curve.values[e - 1]) for e in seen]
        if curve.diverged and limit == curve.n_epochs:
            owners.append(i)
            epochs.append(limit + 1)
            values.append(-math.inf)
    if not values:
        return None
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal ones share theirs; scipy.stats takes a second to load
    standing = ndtri((ranks - 0.5) / len(values))
    owner_array = np.array(owners, dtype=np.int64)
    return Rows(points[owner_array], relative_time(np.array(epochs, dtype=float), longest), owner_array, standing)


def thinned(rows: Rows, n_most: int) -> Rows:
    """As many rows as may be, so that the model is blind to no part of the study.

    Where they are too many: the last row of each of the best curves, of the others an even share, the worst included;
    what is left goes to the row before the last, and the one before that, of the best.
    """
    order = np.lexsort((-rows.times, rows.owners))
    age = np.arange(len(order)) - np.searchsorted(rows.owners[order], rows.owners[order], side="left")
    kept = order[age < ROWS_A_TRIAL]
    if len(kept) <= n_most:
        return rows.at(np.sort(kept))
    last = order[age == 0]
    best_first = last[np.lexsort((-last, -rows.values[last]))]  # of equal ones the newest
    n_best = min(len(last), int(BEST_SHARE * n_most))
    others = best_first[n_best:]
    n_others = min(len(others), int(OTHERS_SHARE * n_most))
    evenly = others[np.linspace(0, len(others) - 1, n_others).round().astype(int)] if n_others else others
    chosen = np.concatenate([best_first[:n_best], evenly])
    place = np.empty(int(rows.owners.max()) + 1, np.int64)
    place[rows.owners[best_first]] = np.arange(len(best_first))
    past = order[(age > 0) & (age < ROWS_A_TRIAL)]
    past_age = age[(age > 0) & (age < ROWS_A_TRIAL)]
    past = past[np.lexsort((past_age, place[rows.owners[past]]))]
    return rows.at(np.sort(np.concatenate([chosen, past[: n_most - len(chosen)]])))
