"""A study's search space, seen by walking its `suggest` over the categorical branches: no language of ours.

It shows a changed space on resume, gives the grid its cells, and yields one sample of each branch to check.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)

from hpo.errors import UserError
from hpo.spec import Params, Suggest

MAX_BRANCHES = 1_000
"""Branches that are walked; a space with more is compared and checked on the first thousand."""

Corner = Literal["low", "middle", "high"]
CORNERS: tuple[Corner, ...] = ("low", "middle", "high")


@dataclass(frozen=True, slots=True)
class Branch:
    """One way through `suggest`: what it suggested, from which distributions, and what it returned."""

    suggested: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    params: Params


class _Probe:
    """Stands in for a trial: takes prescribed categories, then first ones; numbers at a corner of their range."""

    def __init__(self, choices: Sequence[int], corner: Corner) -> None:
        self.number = 0
        self.choices, self.corner = list(choices), corner
        self.n_choices: list[int] = []
        self.suggested: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        _check_range(name, low, high, log=log)
        distribution = _made(name, lambda: FloatDistribution(low, high, log=log, step=step))
        middle = math.sqrt(low * high) if log else (low + high) / 2
        if step is not None:
            middle = low + round((middle - low) / step) * step
        value = {"low": low, "middle": middle, "high": high}[self.corner]
        return float(self._given(name, distribution, float(value)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        _check_range(name, low, high, log=log)
        distribution = _made(name, lambda: IntDistribution(low, high, log=log, step=step))
        middle = round(math.sqrt(low * high)) if log else low + (high - low) // (2 * step) * step
        value = {"low": low, "middle": middle, "high": high}[self.corner]
        return int(self._given(name, distribution, value))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if not choices:
            raise UserError(f"suggest: {name} needs at least one choice, got none")
        if odd := [c for c in choices if not isinstance(c, bool | int | float | str | None)]:
            raise UserError(f"suggest: {name} has the choice {odd[0]!r:.60}, need text, numbers, True, False or None")
        distribution = _made(name, lambda: CategoricalDistribution(choices))
        if name in self.suggested:
            return self._given(name, distribution, None)
        position = len(self.n_choices)
        self.n_choices.append(len(choices))
        if position == len(self.choices):
            self.choices.append(0)
        return self._given(name, distribution, choices[self.choices[position]])

    def set_user_attr(self, key: str, value: Any) -> None:
        """Nothing: a probe is never stored."""

    def _given(self, name: str, distribution: BaseDistribution, value: Any) -> Any:
        first = self.distributions.setdefault(name, distribution)
        if first != distribution:  # of two ranges in one trial Optuna takes the first, and warns
            raise _two_names(name, first, distribution)
        return self.suggested.setdefault(name, value)


def _check_range(name: str, low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or low > high or (log and low <= 0):
        need = "0 < low <= high" if log else "low <= high, both finite"
        raise UserError(f"suggest: {name} has the range [{low}, {high}]{' (log)' if log else ''}, need {need}")


def _made(name: str, make: Any) -> BaseDistribution:
    try:
        distribution: BaseDistribution = make()
    except ValueError as error:
        raise UserError(f"suggest: {name}: {error}") from None
    return distribution


def walk(suggest: Suggest, corner: Corner = "middle") -> Iterator[Branch]:
    """Every categorical branch of a search space, in a fixed order.

    Args:
        suggest: the space.
        corner: where numbers are taken: the low end, the middle (geometric on a log scale) or the high end.

    Raises:
        UserError: a range or a choice that can't be, or a `suggest` that raises.
    """
    waiting: list[list[int]] = [[]]
    walked = 0
    while waiting and walked < MAX_BRANCHES:
        prefix = waiting.pop()
        probe = _Probe(prefix, corner)
        try:
            params = suggest(probe)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"suggest raises {type(error).__name__}: {error}") from error
        if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
            raise UserError(f"suggest must return a dict of params, got {params!r:.80}")
        try:
            json.dumps(params)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"suggest must return numbers, strings, lists and dicts as JSON has them: {error}"
            ) from None
        walked += 1
        yield Branch(probe.suggested, probe.distributions, dict(params))
        for position in reversed(range(len(prefix), len(probe.n_choices))):
            taken = probe.choices[:position]
            waiting += [[*taken, choice] for choice in reversed(range(1, probe.n_choices[position]))]


def distributions(suggest: Suggest) -> dict[str, list[str]]:
    """The space as names and Optuna's JSON of their distributions (several where branches differ).

    Raises:
        UserError: as `walk`; or a name is of two kinds, or has two sets of choices, which no sampler can learn from.
    """
    found: dict[str, list[str]] = {}
    first: dict[str, BaseDistribution] = {}
    for branch in walk(suggest):
        for name, distribution in branch.distributions.items():
            refuse_another_kind(name, first.setdefault(name, distribution), distribution)
            text = distribution_to_json(distribution)
            if text not in found.setdefault(name, []):
                found[name].append(text)
    return {name: sorted(texts) for name, texts in sorted(found.items())}


def refuse_another_kind(name: str, first: BaseDistribution, other: BaseDistribution) -> None:
    """Refuse what Optuna does: only the range of a number may differ from trial to trial.

    Raises:
        UserError: the two are of two kinds, or have two sets of choices.
    """
    try:
        check_distribution_compatibility(first, other)
    except ValueError:
        raise _two_names(name, first, other) from None


def _two_names(name: str, first: BaseDistribution, other: BaseDistribution) -> UserError:
    return UserError(f"suggest: {name} is {_words([first, other])}; give the two different names")


def changes(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    """What differs between two spaces, in words, but for numeric ranges that only widen; empty where nothing does."""
    words = [f"{name} is new" for name in now if name not in before]
    words += [f"{name} is gone" for name in before if name not in now]
    for name in sorted(set(before) & set(now)):
        old = [json_to_distribution(text) for text in before[name]]
        new = [json_to_distribution(text) for text in now[name]]
        if len(old) != len(new) or not all(_same_or_wider(a, b) for a, b in zip(old, new, strict=True)):
            words.append(f"{name} was {_words(old)}, now {_words(new)}")
    return words


def _same_or_wider(old: BaseDistribution, new: BaseDistribution) -> bool:
    if isinstance(old, FloatDistribution | IntDistribution) and type(old) is type(new):
        same_scale = (old.log, old.step) == (new.log, new.step)
        return same_scale and new.low <= old.low and new.high >= old.high
    return old == new


def _words(found: Sequence[BaseDistribution]) -> str:
    words = []
    for d in found:
        if isinstance(d, CategoricalDistribution):
            words.append("{" + ", ".join(map(str, d.choices)) + "}")
        elif isinstance(d, FloatDistribution | IntDistribution):
            step = f" step {d.step}" if d.step not in {None, 1} else ""
            words.append(f"[{d.low}, {d.high}]{' log' if d.log else ''}{step}")
        else:
            words.append(json.dumps(distribution_to_json(d)))
    return " or ".join(words)


def grid(suggest: Suggest) -> dict[str, list[Any]]:
    """The cells' axes: every choice of categorical names, every step of whole numbers.

    Raises:
        UserError: a float without a step has no cells.
    """
    axes: dict[str, list[Any]] = {}
    for branch in walk(suggest):
        for name, d in branch.distributions.items():
            if isinstance(d, CategoricalDistribution):
                values = list(d.choices)
            elif isinstance(d, IntDistribution):
                values = list(range(d.low, d.high + 1, d.step))
            elif isinstance(d, FloatDistribution) and d.step is not None:
                values = [d.low + i * d.step for i in range(round((d.high - d.low) / d.step) + 1)]
            else:
                raise UserError(f"sampler 'grid': {name} is a range without steps; use suggest_categorical or step=")
            axes[name] = values
    return axes
