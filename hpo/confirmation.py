"""What re-training on fresh seeds says of a study's best configurations: pure statistics of it, and its file.

Legend: K configurations, the baseline among them; S seeds, the same for each.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.whole import write_whole

log = logging.getLogger("hpo")

LEVEL = 0.95
FILE = "confirmation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with an interval that holds the true one with probability `level`.

    Attributes:
        mean: of the values.
        std: of one value, with n - 1; 0 for a single value.
        low: lower end of the interval; minus infinity where there is none: of a single value, or of equal ones.
        high: upper end.
        level: of the interval, in (0, 1).
    """

    mean: float
    std: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One configuration, trained anew on each seed.

    Attributes:
        trial: number of the trial of the search that had it.
        params: what its trainer gets.
        is_baseline: whether it is the first that was enqueued.
        searched: the value that the search saw; None for one that the search gave none (a failed baseline).
        trials: numbers of the trials of the confirming study, by seed.
        values: their values, by seed.
        estimate: of the true mean, by itself.
        optimism: what the search saw over the confirmed mean, signed so that above 0 means: it saw too much of it.
    """

    trial: int
    params: Mapping[str, Any]
    is_baseline: bool
    searched: float | None
    trials: tuple[int, ...]
    values: tuple[float, ...]
    estimate: Estimate
    optimism: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """The winner's networks on the test split, looked at once.

    Attributes:
        metric: name of what is scored.
        values: by seed.
        estimate: over the seeds.
        champion: the value of the network whose validation was best.
        champion_low: lower end of its interval from the number of images; None where the metric is no share of them.
        champion_high: upper end.
        n_images: of the split; None where the trainer does not say.
        scorings: how often this study has looked at its test split so far, this time included.
    """

    metric: str
    values: tuple[float, ...]
    estimate: Estimate
    champion: float
    champion_low: float | None
    champion_high: float | None
    n_images: int | None
    scorings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What is confirmed of a study.

    Attributes:
        study: name of the study.
        metric: what is compared.
        direction: maximize or minimize.
        configurations: best mean first: the first is the winner.
        winner: the winner's mean with an interval that allows for its having been chosen among K.
        difference: winner minus baseline, seed by seed, with an interval that allows for the choice; None where the
            winner is the baseline, or there is none.
        optimism: mean over those that were chosen for what the search saw of them; None where there are none.
        regret: how much better another of them may be than the winner, at most, with probability `LEVEL`; None where
            that can't be said: of one configuration, or of seeds that are too few or all alike.
        champion: number of the winner's trial, in the confirming study, whose network is the best by validation.
        test: None where the data have no test split, or it is not scored yet.
        study_id: of the search: a later study of the same name is another one.
        top: how many of the search's best were asked for.
    """

    study: str
    metric: str
    direction: str
    configurations: tuple[Configuration, ...]
    winner: Estimate
    difference: Estimate | None
    optimism: float | None
    champion: int
    regret: float | None = None
    test: Test | None = None
    study_id: str = ""
    top: int = 0

    @property
    def best(self) -> Configuration:
        """The winner."""
        return self.configurations[0]

    @property
    def n_seeds(self) -> int:
        """S."""
        return len(self.best.values)

    @property
    def baseline(self) -> Configuration | None:
        """The baseline, where there is one."""
        return next((c for c in self.configurations if c.is_baseline), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """A configuration's values by seed, before anything is made of them; fields as in `Configuration`."""

    trial: int
    params: Mapping[str, Any]
    is_baseline: bool
    searched: float | None
    trials: tuple[int, ...]
    values: tuple[float, ...]


def estimate(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Mean and two-sided Student's t interval (`scipy.stats.t.interval`), which covers `level` of normal values.

    Values that are equal are none: shares of few images coincide, and their spread, 0, would make the interval a point.
    """
    mean, n = float(np.mean(values)), len(values)
    std = float(np.std(values, ddof=1)) if n > 1 else 0.0
    if std <= 1e-12 * max(abs(mean), 1e-3):  # differences of equal shares are not quite equal
        return Estimate(mean=mean, std=0.0, low=-math.inf, high=math.inf, level=level)
    from scipy import stats  # half a second, and those who read a confirmation need none of it

    low, high = stats.t.interval(level, n - 1, loc=mean, scale=std / math.sqrt(n))
    return Estimate(mean=mean, std=std, low=float(low), high=float(high), level=level)


def chosen_among(values: Sequence[float], k: int, sign: float) -> Estimate:
    """The mean of the best of k, with an interval that allows for the choice.

    The best of k looks better than it is, never worse: the end towards worse is Bonferroni's, (1 - level) / 2 shared
    among k; the other end is that of one by itself. With k true means that differ, each end errs no more often.

    Args:
        values: of the chosen one.
        k: among how many it was chosen.
        sign: 1 where more is better, -1 where less is.
    """
    alone, careful = estimate(values), estimate(values, level=1 - (1 - LEVEL) / k)
    low, high = (careful.low, alone.high) if sign > 0 else (alone.low, careful.high)
    return dataclasses.replace(alone, low=low, high=high)


def simple_regret(best: Sequence[float], others: Sequence[Sequence[float]], sign: float) -> float | None:
    """How much better than the best of K another of them may be, at most, with probability `LEVEL`; 0: it is the best.

    Hsu's multiple comparisons with the best (J. C. Hsu, Multiple Comparisons, 1996, chapter 4): it errs only where the
    truly best one is not chosen and looks too bad beside the chosen, so its K - 1 differences are all that must hold
    together, whichever was chosen. They are paired by seed: Student's t, Bonferroni's, the worse end of intervals that
    have two, so that 0 agrees with an interval of the difference to a baseline among them that holds no difference.

    Args:
        best: values of the chosen one, by seed.
        others: those of each other one.
        sign: 1 where more is better, -1 where less is.

    Returns:
        None where there is no other, or a difference has no interval.
    """
    if not others:
        return None
    pairs = ([sign * (a - b) for a, b in zip(best, other, strict=True)] for other in others)
    found = max(-chosen_among(differences, len(others), 1.0).low for differences in pairs)
    return max(0.0, found) if math.isfinite(found) else None


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of n (`scipy.stats.binomtest`, `proportion_ci`, method wilson)."""
    from scipy import stats

    found = stats.binomtest(round(share * n), n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def confirmed(retrained: Sequence[Retrained], *, study: str, metric: str, direction: str) -> Confirmation:
    """What the values say; all configurations have the same seeds, in the same order.

    The difference to the baseline is paired by seed: Student's t of the differences (as `scipy.stats.ttest_rel` has
    it), chosen among K - 1.

    Raises:
        ValueError: nothing was re-trained, or not on the same seeds.
    """
    if not retrained or len({len(one.values) for one in retrained}) != 1 or not retrained[0].values:
        raise ValueError("every configuration needs a value for each seed")
    sign = 1.0 if direction == "maximize" else -1.0
    found = [
        Configuration(
            **{field.name: getattr(one, field.name) for field in dataclasses.fields(one)},
            estimate=estimate(one.values),
            optimism=None if one.searched is None else sign * (one.searched - float(np.mean(one.values))),
        )
        for one in retrained
    ]
    found.sort(key=lambda one: (-sign * one.estimate.mean, one.trial))
    best, baseline = found[0], next((one for one in found if one.is_baseline), None)
    difference = None
    if baseline is not None and baseline is not best:
        pairs = [a - b for a, b in zip(best.values, baseline.values, strict=True)]
        difference = chosen_among(pairs, len(found) - 1, sign)
    # The baseline is there whatever the search saw of it.
    seen = [one.optimism for one in found if one.optimism is not None and not one.is_baseline]
    champion = max(zip(best.values, best.trials, strict=True), key=lambda pair: (sign * pair[0], -pair[1]))[1]
    return Confirmation(
        study=study,
        metric=metric,
        direction=direction,
        configurations=tuple(found),
        winner=chosen_among(best.values, len(found), sign),
        difference=difference,
        optimism=float(np.mean(seen)) if seen else None,
        regret=simple_regret(best.values, [one.values for one in found[1:]], sign),
        champion=champion,
    )


def write(confirmation: Confirmation, folder: Path) -> Path:
    """Write it as `folder/confirmation.json`, whole or not at all; gives the file."""
    path = folder / FILE
    found = _finite(dataclasses.asdict(confirmation))
    write_whole(path, json.dumps(found, indent=2, allow_nan=False).encode())
    return path


def _finite(found: Any) -> Any:
    """A value as JSON can have it: an interval's end that is infinite is null there."""
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and math.isinf(found) else found


def read(folder: Path, study_id: str) -> Confirmation | None:
    """What `write` left in a folder for a study; None where it left nothing, or nothing that can be read."""
    try:
        said = _read(json.loads((folder / FILE).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:  # of another version, or edited
        log.warning("%s can't be read: %s: %s", folder / FILE, type(error).__name__, error)
        return None
    return said if said.study_id == study_id else None


def _read(found: Mapping[str, Any]) -> Confirmation:
    if not found["configurations"]:
        raise ValueError("no configuration is in it")
    configurations = tuple(
        Configuration(**{
            **one,
            "trials": tuple(one["trials"]),
            "values": tuple(one["values"]),
            "estimate": _estimate(one["estimate"]),
        })
        for one in found["configurations"]
    )  # fmt: skip
    test = None if found["test"] is None else test_from(found["test"])
    difference = None if found["difference"] is None else _estimate(found["difference"])
    known = {**found, "configurations": configurations, "winner": _estimate(found["winner"])}
    return Confirmation(**{**known, "difference": difference, "test": test})


def test_from(found: Mapping[str, Any]) -> Test:
    """A test as JSON kept it."""
    return Test(**{**found, "values": tuple(found["values"]), "estimate": _estimate(found["estimate"])})


def as_json(test: Test) -> dict[str, Any]:
    """A test as JSON can have it."""
    found: dict[str, Any] = _finite(dataclasses.asdict(test))
    return found


def _estimate(found: Mapping[str, Any]) -> Estimate:
    low, high = found["low"], found["high"]
    return Estimate(**{**found, "low": -math.inf if low is None else low, "high": math.inf if high is None else high})
