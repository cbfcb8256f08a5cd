"""What trials have shown, as a model of their curves takes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri
from scipy.stats import rankdata

from hpo.coordinates import Floats
from hpo.schedulers.protocol import DIVERGED
from hpo.schedulers.surrogate import Rows
from hpo.spec import StudySpec

ROWS_A_TRIAL = 3


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
    sign = 1.0 if spec.direction == "maximize" else -1.0
    found = sign * np.array([v for _, v in sorted(trial.intermediate_values.items())], dtype=float)
    found = np.where(np.isfinite(found), found, -math.inf)
    values = found if spec.value == "last" else np.maximum.accumulate(found) if len(found) else found
    diverged = trial.state == TrialState.PRUNED and str(trial.user_attrs.get("hpo.reason", "")).startswith(DIVERGED)
    return Curve(trial, values, diverged, horizon)


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
    standing = ndtri((rankdata(values) - 0.5) / len(values))
    owner_array = np.array(owners, dtype=np.int64)
    return Rows(points[owner_array], relative_time(np.array(epochs, dtype=float), longest), owner_array, standing)


def thinned(rows: Rows, n_most: int) -> Rows:
    """Of each configuration the last few, the furthest first, as many as may be."""
    order = np.lexsort((-rows.times, rows.owners))
    place = np.arange(len(order)) - np.searchsorted(rows.owners[order], rows.owners[order], side="left")
    kept = order[place < ROWS_A_TRIAL]
    furthest = kept[np.lexsort((rows.owners[kept], -rows.times[kept]))][:n_most]
    return rows.at(np.sort(furthest))
