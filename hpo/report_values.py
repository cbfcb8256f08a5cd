"""How the report writes values: shares of images in percent, all else in four digits; and its tables as values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.confirmation import Estimate
from hpo.schedulers.protocol import has_diverged, params_of, was_paused

NONE = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of words.

    Attributes:
        columns: their heads.
        rows: of cells, ready to be read.
        note: a sentence below it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1] that people read in percent."""
    return "accuracy" in metric


def value_words(metric: str, value: float | None) -> str:
    """A metric's value: `61.34 %` of an accuracy, four digits of any other."""
    if value is None or math.isnan(value):
        return NONE
    return f"{100 * value:.2f} %" if is_share(metric) and math.isfinite(value) else f"{value:.4g}"


def difference_words(metric: str, value: float | None) -> str:
    """A difference of two values, with its sign: `+1.20 points` of an accuracy."""
    if value is None or math.isnan(value):
        return NONE
    return f"{100 * value:+.2f} points" if is_share(metric) and math.isfinite(value) else f"{value:+.4g}"


def interval_words(metric: str, found: Estimate) -> str:
    """Where the true mean lies: `60.80 % to 61.90 %`."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return "no interval: too few values that differ"
    low, high = found.low, found.high
    if is_share(metric) and 0.0 <= found.mean <= 1.0:  # the true one can't lie beyond
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{value_words(metric, low)} to {value_words(metric, high)}"


def cell(value: Any) -> str:
    """Any value as a cell of a table has it."""
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params_words(params: Mapping[str, Any]) -> str:
    """Params in a line: `optimizer adam, learning_rate 0.0008`."""
    return ", ".join(f"{name} {cell(value)}" for name, value in params.items()) or "no params"


def all_params(trial: FrozenTrial) -> dict[str, Any]:
    """What the trainer got for a trial, then what was suggested besides."""
    return {**params_of(trial), **{k: v for k, v in trial.params.items() if k not in params_of(trial)}}


def outcome(trial: FrozenTrial) -> str:
    """How a trial stands, in a word."""
    if trial.state == TrialState.PRUNED:
        return "paused" if was_paused(trial) else "diverged" if has_diverged(trial) else "pruned"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "at work or at rest",
        TrialState.WAITING: "waiting",
    }[trial.state]


OUTCOMES = {
    "complete": "trained to its end",
    "pruned": "stopped by the pruner",
    "paused": "still paused when the study ended; its value counts",
    "diverged": "a loss or a metric was not finite",
    "failed": "raised, or its worker died again and again",
    "at work or at rest": "is trained now, or goes on with the next command",
    "waiting": "enqueued, not begun",
}
"""What each outcome means."""
