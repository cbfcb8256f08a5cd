"""What a model of a study sees of its configurations: numbers that matter rather than what is spelled.

A configuration becomes a point: numeric params on [0, 1] (on their log scale where they have one), choices one-hot,
choices among numbers by their place on their own scale, a param that a configuration lacks in the middle with a
coordinate that says so. The learning rate is taken relative to what suits its optimizer and its batch. This is the
model's own view: what is stored stays as it was suggested.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo import space
from hpo.spec import Suggest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATE_NAMES = ("learning_rate", "lr")
REFERENCE_RATES = {"sgd": 0.1, "momentum": 0.1, "adam": 1e-3, "adamw": 1e-3, "nadam": 1e-3, "rmsprop": 1e-3}
"""Where an absolute learning rate is searched for several optimizers at once: rates that are alike, each for its own.

Momentum's is after division by (1 - momentum). Source: the usual defaults; DeepOBS's baselines for SGD and Adam."""
_REFERENCE_RATE, _REFERENCE_MOMENTUM = 1e-3, 0.9
BATCH_POWER = {"sgd": 1.0, "momentum": 1.0}
"""The power of the batch size with which the best rate grows: 1 for SGD (Goyal et al. 2017, arXiv:1706.02677) ..."""
ADAPTIVE_POWER = 0.5
"""... and the square root for adaptive optimizers (Malladi et al. 2022, arXiv:2205.10287)."""
_APART = 1 / math.sqrt(2)
"""One-hot columns are this high, so that two choices lie 1 apart."""


class Coordinates:
    """The view of one search space.

    Args:
        suggest: the space.
        ignored: suggested names that are no coordinate, such as a trial's own length.
    """

    def __init__(self, suggest: Suggest, ignored: frozenset[str] = frozenset()) -> None:
        branches = list(space.walk(suggest))
        found: dict[str, BaseDistribution] = {}
        for branch in branches:
            for name, distribution in branch.distributions.items():
                found.setdefault(name, distribution)
        self._axes = {name: d for name, d in found.items() if name not in ignored}
        self._conditional = {n for n in self._axes if any(n not in b.distributions for b in branches)}
        self._rate = _rate_of(found)

    def encode(self, configurations: Sequence[Mapping[str, Any]]) -> Floats:
        """Configurations, in their suggested names, as points: float64 [n, d], near [0, 1]."""
        columns: list[Floats] = []
        for name, distribution in self._axes.items():
            values = [suggested.get(name) for suggested in configurations]
            there = np.array([name in suggested for suggested in configurations], dtype=bool)
            found = _columns(distribution, values, there)
            if self._rate is not None and name == self._rate.name:
                found[0][there] += self._rate.shifts([c for c in configurations if name in c])
            columns += found
            if name in self._conditional:
                columns.append(_APART * ~there)
        return np.column_stack(columns) if columns else np.zeros((len(configurations), 1))


def _columns(distribution: BaseDistribution, values: Sequence[Any], there: NDArray[np.bool_]) -> list[Floats]:
    if isinstance(distribution, CategoricalDistribution) and _numbers(distribution) is None:
        known = [(type(v), v) for v in values]
        return [np.array([_APART * (v == (type(c), c)) for v in known]) for c in distribution.choices]
    column = np.full(len(values), 0.5)
    numbers = np.array([v for v, is_there in zip(values, there, strict=True) if is_there], dtype=float)
    if choices := _numbers(distribution):
        low, high = min(choices), max(choices)
        column[there] = _unit(numbers, low, high, log=low > 0 and high / low >= 4)
    elif isinstance(distribution, FloatDistribution | IntDistribution):
        column[there] = _unit(numbers, distribution.low, distribution.high, log=distribution.log)
    return [column]


def _numbers(distribution: BaseDistribution | None) -> list[float] | None:
    """The choices of a categorical param, where all are numbers and there are more than two."""
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    numbers = [float(c) for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
    return numbers if len(numbers) == len(choices) > 2 else None


def _unit(values: Floats, low: float, high: float, *, log: bool) -> Floats:
    if high <= low:
        return np.full_like(values, 0.5)
    if log:
        return np.asarray(np.log(values / low) / math.log(high / low))
    return (values - low) / (high - low)


@dataclass(frozen=True, slots=True)
class _Rate:
    """The learning rate's axis: how far it is moved for optimizer, momentum and batch size.

    Attributes:
        span: of the rate's own range, in units of the natural logarithm.
        is_relative: whether it is a multiple of the optimizer's reference already.
        batch_middle: the logarithm of the batch size at which nothing is moved.
    """

    name: str
    span: float
    is_relative: bool
    batch_middle: float

    def shifts(self, configurations: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array([self._shift(suggested) / self.span for suggested in configurations])

    def _shift(self, suggested: Mapping[str, Any]) -> float:
        momentum = suggested.get("momentum")
        has_momentum = isinstance(momentum, float) and 0 <= momentum < 1
        optimizer = str(suggested.get("optimizer", "momentum" if has_momentum else "")).lower()
        moved = 0.0
        if not self.is_relative:
            if "optimizer" in suggested:
                moved -= math.log(REFERENCE_RATES.get(optimizer, _REFERENCE_RATE) / _REFERENCE_RATE)
            if has_momentum:
                moved -= math.log(1 - float(momentum or 0.0))
            elif optimizer == "momentum":
                moved -= math.log(1 - _REFERENCE_MOMENTUM)
        batch = suggested.get("batch_size")
        if isinstance(batch, int) and batch > 0:
            moved -= BATCH_POWER.get(optimizer, ADAPTIVE_POWER) * (math.log(batch) - self.batch_middle)
        return moved


def _rate_of(found: Mapping[str, BaseDistribution]) -> _Rate | None:
    names = [*RATE_NAMES, *(f"{name}_scale" for name in RATE_NAMES)]
    name = next((n for n in names if n in found), None)
    d = found.get(name or "")
    if name is None or not isinstance(d, FloatDistribution) or not d.log or d.high <= d.low:
        return None
    batch = found.get("batch_size")
    ends: tuple[float, float] = (1, 1)
    if choices := _numbers(batch):
        ends = (min(choices), max(choices))
    elif isinstance(batch, IntDistribution):
        ends = (batch.low, batch.high)
    middle = math.log(max(1, ends[0]) * max(1, ends[1])) / 2
    return _Rate(name, math.log(d.high / d.low), name.endswith("_scale"), middle)
