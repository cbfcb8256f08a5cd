"""Draws configurations from a search space: anywhere, evenly spread, or near one; conditional params and all."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.spec import Suggest

_KEPT_SHARE = 0.3
"""A neighbour keeps each numeric param with this chance, so that some differ in few params."""


class Scale:
    """A distribution as the interval [0, 1], on its log scale where it has one.

    Raises:
        TypeError: a distribution of a kind that Optuna doesn't have.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.choices: tuple[Any, ...] | None = None
        self.step: float | None = None
        self._low = self._high = 0.0
        self.log = False
        self.whole = isinstance(distribution, IntDistribution)
        if isinstance(distribution, CategoricalDistribution):
            self.choices = tuple(distribution.choices)
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            self.log, self._low, self._high = distribution.log, distribution.low, distribution.high
            self.step = distribution.step if not distribution.log else None
            margin = 0.5 if self.whole else 0.0  # so that each whole number gets its share of a log scale
            if self.log:
                self._base = math.log(self._low - margin)
                self._span = math.log(self._high + margin) - self._base
        else:
            raise TypeError(f"unknown distribution {distribution!r}")

    def value(self, place: float) -> Any:
        """The value at a place in [0, 1)."""
        if self.choices is not None:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            found = math.exp(self._base + place * self._span)
            found = round(found) if self.whole else found
        elif self.step is not None:
            n_steps = round((self._high - self._low) / self.step)
            found = self._low + min(int(place * (n_steps + 1)), n_steps) * self.step
        else:
            found = self._low + place * (self._high - self._low)
        return min(self._high, max(self._low, found))

    def place(self, value: float) -> float:
        """Where a number lies in [0, 1]."""
        if self._high <= self._low:
            return 0.5
        if self.log:
            return (math.log(value) - self._base) / self._span
        return (value - self._low) / (self._high - self._low)

    def holds(self, value: Any) -> bool:
        """Whether the distribution can have such a value."""
        if self.choices is not None:
            return value in self.choices
        return isinstance(value, int | float) and self._low <= value <= self._high


@dataclass(frozen=True, slots=True)
class Drawn:
    """A configuration that was drawn: in suggested names, with its distributions, and as the trainer gets it."""

    suggested: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    params: Mapping[str, Any]


class Candidates(Protocol):
    """Where configurations come from."""

    def anywhere(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        """`n` configurations, uniform on each param's scale."""
        ...

    def spread(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        """`n` configurations that fill the space evenly: each param's values, and each choice's, are balanced."""
        ...

    def near(self, rng: np.random.Generator, around: Mapping[str, Any], n: int, width: float) -> Iterator[Drawn]:
        """`n` configurations like `around`: each param keeps its value, or moves by about `width` of its range."""
        ...


class Draws:
    """Candidates from a study's `suggest`."""

    def __init__(self, suggest: Suggest) -> None:
        self._suggest = suggest
        self._scales: dict[tuple[Any, ...], Scale] = {}

    def anywhere(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        """See `Candidates`."""
        places = _stream(rng.random)
        for _ in range(n):
            yield self._draw(lambda _, scale: scale.value(next(places)))

    def spread(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        """See `Candidates`: a Latin hypercube over the names as they come up (McKay et al. 1979).

        The first choice goes round, so that the first few are balanced over it too: an optimizer, most often.
        """
        orders: dict[str, NDArray[np.int64]] = {}
        rounds: dict[str, list[Any]] = {}

        def take(row: int, name: str, scale: Scale) -> Any:
            order = orders.setdefault(name, rng.permutation(n))
            if scale.choices is not None:
                if not rounds:
                    rounds[name] = [scale.choices[i] for i in rng.permutation(len(scale.choices))]
                if name in rounds:
                    return rounds[name][row % len(scale.choices)]
                return scale.choices[int(order[row]) % len(scale.choices)]
            return scale.value((int(order[row]) + rng.random()) / n)

        for row in range(n):
            yield self._draw(lambda name, scale, row=row: take(row, name, scale))  # type: ignore[misc]

    def near(self, rng: np.random.Generator, around: Mapping[str, Any], n: int, width: float) -> Iterator[Drawn]:
        """See `Candidates`."""
        places, moves = _stream(rng.random), _stream(rng.standard_normal)
        known: dict[tuple[str, int], float | None] = {}

        def take(name: str, scale: Scale) -> Any:
            key = name, id(scale)
            if key not in known:
                held = name in around and scale.holds(around[name])
                known[key] = None if not held else scale.place(around[name]) if scale.choices is None else 0.0
            place = known[key]
            if place is None:
                return scale.value(next(places))
            if scale.choices is not None:
                return around[name] if next(places) > width else scale.value(next(places))
            if next(places) < _KEPT_SHARE:
                return around[name]
            return scale.value(_reflected(place + width * next(moves)))

        for _ in range(n):
            yield self._draw(take)

    def _draw(self, take: Callable[[str, Scale], Any]) -> Drawn:
        trial = _Trial(take, self._scales)
        params = self._suggest(trial)
        return Drawn(trial.suggested, trial.distributions, dict(params))


class _Trial:
    """Stands in for Optuna's: takes each value by a rule."""

    number = 0

    def __init__(self, take: Callable[[str, Scale], Any], scales: dict[tuple[Any, ...], Scale]) -> None:
        self._take, self._scales = take, scales
        self.suggested: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        key = ("float", low, high, step, log)
        return float(self._given(name, key, lambda: FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        key = ("int", low, high, step, log)
        return int(self._given(name, key, lambda: IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        key = ("choice", *((type(c), c) for c in choices))
        return self._given(name, key, lambda: CategoricalDistribution(choices))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Nothing: what is drawn is not stored yet."""

    def _given(self, name: str, key: tuple[Any, ...], make: Callable[[], BaseDistribution]) -> Any:
        if name not in self.suggested:
            scale = self._scales.get(key)
            if scale is None:
                scale = self._scales[key] = Scale(make())
            self.suggested[name] = self._take(name, scale)
            self.distributions[name] = scale.distribution
        return self.suggested[name]


def _stream(draw: Callable[[int], NDArray[np.float64]]) -> Iterator[float]:
    """Numbers without end, drawn many at a time: they are asked for by the thousand."""
    while True:
        yield from draw(256).tolist()


def _reflected(place: float) -> float:
    place = abs(place) % 2
    return 2 - place if place > 1 else place
