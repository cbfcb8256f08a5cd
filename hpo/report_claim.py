"""What a report says first: which configuration is best, by how much, and how sure that is; beside it the paper's."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from hpo.confirmation import Configuration, Confirmation, Test
from hpo.plan import baseline_of
from hpo.report_values import (
    NONE,
    Table,
    all_params,
    cell,
    difference_words,
    interval_words,
    is_share,
    params_words,
    value_words,
)
from hpo.schedulers.protocol import params_of
from hpo.spec import StudySpec

PAPER_METRIC = "val_accuracy"
PAPER_ROWS = (
    (100, "SGD", 0.9979, 0.5858, "0.006"),
    (200, "SGD", 0.9985, 0.6020, "0.019"),
    (100, "Adam", 0.2477, 0.2382, "1e6"),
    (200, "Adam", 0.2683, 0.2571, "4e6"),
)
"""Table 2 of "Facial Emotion Recognition using CNN in PyTorch": epochs, optimizer, training and validation accuracy,
training loss."""


def claim(spec: StudySpec, ranked: Sequence[FrozenTrial], confirmation: Confirmation | None, confirm: str) -> list[str]:
    """The claim, in a few sentences; the first says which configuration is best.

    Args:
        spec: of the study.
        ranked: trials whose values count, best first.
        confirmation: of its best configurations, where there is one.
        confirm: the command that makes one.
    """
    if confirmation is not None:
        return confirmed(confirmation)
    if not ranked:
        return [f"No trial of {spec.name} has a value: all of them diverged, failed or were pruned."]
    best = ranked[0]
    of = f"Of {len(ranked)} trials with a value" if len(ranked) > 1 else "Of one trial with a value"
    first = (
        f"{of}, trial {best.number} has the best {spec.metric}: {value_words(spec.metric, best.value)} in its "
        f"{spec.value} epoch, with {params_words(params_of(best))}."
    )
    words = [first]
    baseline = baseline_of(spec, ranked)
    if baseline is not None and baseline is not best:
        gain = spec.sign * ((best.value or 0.0) - (baseline.value or 0.0))
        words.append(
            f"That is {_better(spec.metric, gain)} than the baseline, trial {baseline.number} "
            f"({value_words(spec.metric, baseline.value)})."
        )
    words.append(
        "This is the search's best and is not confirmed: the best of many looks better than it is. "
        f"To train it anew, on fresh seeds: {confirm}"
    )
    return words


def confirmed(found: Confirmation) -> list[str]:
    """What was confirmed, as a person says it; the first sentence says which configuration is best."""
    metric, best, sign = found.metric, found.best, 1.0 if found.direction == "maximize" else -1.0
    seeds = f"{found.n_seeds} fresh seed{'s'[: found.n_seeds != 1]}"
    k = len(found.configurations)
    end = "lower" if sign > 0 else "upper"
    choice = f", whose {end} end allows for its choice among {k}" if k > 1 and found.n_seeds > 1 else ""
    first = (
        f"The configuration of trial {best.trial} is best, with {params_words(best.params)}: {metric} "
        f"{value_words(metric, best.estimate.mean)} on {seeds} ({_interval(metric, found.winner)}{choice})."
    )
    words = [first]
    if best.is_baseline:
        words.append("It is the baseline: the search has found nothing better.")
    elif found.difference is not None:
        low, high = sorted((sign * found.difference.low, sign * found.difference.high))
        gain = _better(metric, sign * found.difference.mean)
        if not math.isfinite(low):
            between = "; that may be chance: too few seeds differ for an interval"
        else:
            chance = "" if low > 0 else "; that may be chance, since no difference lies in the interval"
            between = f"{_between(metric, low, high)}{chance}"
        words.append(f"It is {gain} than the baseline{between}.")
    if found.regret is not None and (k > 2 or found.difference is None):  # else it is said of the baseline already
        others = f"none of the other {k - 1} is better" if k > 2 else "the other is not better"
        by = f" by more than {_at_most(metric, found.regret)}" if found.regret > 0 else ""
        words.append(f"With 95 % confidence {others}{by}.")
    words.append("There is no score on a test split." if found.test is None else _test_words(found.test))
    if found.optimism is not None:
        seen = [one.trial for one in found.configurations if one.optimism is not None and not one.is_baseline]
        these = f"the {len(seen)} configurations it chose" if len(seen) > 1 else f"the configuration of trial {seen[0]}"
        gap = _size(metric, found.optimism)
        words.append(
            f"The search had seen {these} {gap} better than fresh seeds do: the price of choosing the best of many."
            if found.optimism > 0
            else f"The search had not flattered {these}: fresh seeds are {gap} better."
        )
    return words


def _test_words(test: Test) -> str:
    name, n = test.metric, len(test.values)
    words = f"On the test split it has {name} {value_words(name, test.estimate.mean)} over {n} network{'s'[: n != 1]}"
    if n > 1:
        words += f" ({_interval(name, test.estimate)})"
    words += f"; its best network by validation has {value_words(name, test.champion)}"
    if test.champion_low is not None and test.champion_high is not None:
        images = f" from {test.n_images:,} images" if test.n_images else ""
        words += f" ({value_words(name, test.champion_low)} to {value_words(name, test.champion_high)}{images})"
    looked = "once" if test.scorings == 1 else f"{test.scorings} times by now, once for each set of networks that won"
    return f"{words}. The test split was looked at {looked}."


def _interval(metric: str, estimate: Any) -> str:
    words = interval_words(metric, estimate)
    return f"{100 * estimate.level:.3g} % interval {words}" if math.isfinite(estimate.low) else words


def _between(metric: str, low: float, high: float) -> str:
    return f" (95 % interval {difference_words(metric, low)} to {difference_words(metric, high)})"


def _better(metric: str, gain: float) -> str:
    return f"{_size(metric, gain)} {'better' if gain >= 0 else 'worse'}"


def _at_most(metric: str, bound: float) -> str:
    """A bound in words, never below it: rounded up at the last digit that is shown."""
    digits = 4 if is_share(metric) else 3 - math.floor(math.log10(bound))
    return _size(metric, math.ceil(bound * 10**digits - 1e-9) / 10**digits)


def _size(metric: str, difference: float) -> str:
    return difference_words(metric, abs(difference)).lstrip("+")


def confirmed_table(found: Confirmation) -> Table:
    """Every configuration that was trained anew, the best first."""
    metric = found.metric
    rows = [
        [
            f"{one.trial}{' (baseline)' if one.is_baseline else ''}",
            value_words(metric, one.estimate.mean),
            _bare(metric, one.estimate.std).lstrip("+") if found.n_seeds > 1 else NONE,
            interval_words(metric, one.estimate),
            value_words(metric, one.searched),
            _bare(metric, one.optimism),
            *(cell(one.params.get(name)) for name in _names(found.configurations)),
        ]
        for one in found.configurations
    ]
    unit = ", points" if is_share(metric) else ""
    heads = ["trial", "mean", f"std{unit}", "95 % interval", "search saw", f"optimism{unit}"]
    columns = [*heads, *_names(found.configurations)]
    note = (
        f"{metric} of {found.n_seeds} fresh seed{'s'[: found.n_seeds != 1]}, the same for each; an interval is of one "
        "configuration by itself. Optimism is how much better the search saw it than it is."
    )
    return Table(columns, rows, note)


def _bare(metric: str, value: float | None) -> str:
    """A difference without its unit, which the head of its column has."""
    return difference_words(metric, value).removesuffix(" points")


def _names(configurations: Sequence[Configuration]) -> list[str]:
    return list(dict.fromkeys(name for one in configurations for name in one.params))


def paper_table(spec: StudySpec, dataset: str | None) -> Table | None:
    """The paper's table 2, where the study's metric is the paper's."""
    if spec.metric != PAPER_METRIC:
        return None
    rows = [
        [str(epochs), optimizer, value_words("accuracy", train), value_words("accuracy", validation), loss]
        for epochs, optimizer, train, validation, loss in PAPER_ROWS
    ]
    note = "The paper's best is 60.20 %, tuned by hand, chosen and reported on the same validation split of FER2013."
    if dataset:
        note += f" This study's images: {dataset}."
    return Table(["epochs", "optimizer", "training accuracy", "validation accuracy", "training loss"], rows, note)


def best_table(spec: StudySpec, ranked: Sequence[FrozenTrial], n_rows: int) -> Table:
    """The best trials, with all their parameters."""
    shown = ranked[:n_rows]
    names = list(dict.fromkeys(name for t in shown for name in all_params(t)))
    rows = [
        [
            str(place),
            str(t.number),
            value_words(spec.metric, t.value),
            str(len(t.intermediate_values)),
            *(cell(all_params(t).get(name)) for name in names),
        ]
        for place, t in enumerate(shown, start=1)
    ]
    note = f"{len(shown)} of {len(ranked)} trials with a value." if len(shown) < len(ranked) else ""
    return Table(["rank", "trial", f"{spec.value} {spec.metric}", "epochs trained", *names], rows, note)
