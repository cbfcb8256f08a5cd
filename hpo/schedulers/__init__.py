"""Which trial gets the next epochs: one pure decision over the study's history. No I/O, no clock, no globals.

A scheduler is asked under the store's lock, whenever a worker is free; the search carries its decision out and knows
no strategy. A new scheduler is a module here and a name in `make_scheduler`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.spec import StudySpec


@dataclass(frozen=True, slots=True)
class Suggested:
    """A configuration as a sampler proposed it: everything that Optuna keeps of it."""

    suggested: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    params: Mapping[str, Any]
    """What the study's `suggest` returned: what the trainer gets."""
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    study_attrs: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler keeps on the study, such as the place in a sequence."""


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a new trial, or the one that somebody has put into the store to be run (`waiting`, its number)."""

    suggested: Suggested
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on with a trial that has no owner, to its end."""

    number: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a running trial reports."""


@dataclass(frozen=True, slots=True)
class Done:
    """The study is at its end."""

    reason: str


Decision = Start | Continue | Wait | Done


@dataclass(frozen=True, slots=True)
class History:
    """What a scheduler decides on.

    Attributes:
        spec: the study, its space and its seed among it.
        n_trials: the budget of trials that do not fail; None for no bound.
        trials: all of them, in the order of their numbers, with intermediate values.
        resting: numbers of trials that Optuna holds as RUNNING and that have no live owner.
        study_attrs: what samplers have kept on the study.
    """

    spec: StudySpec
    n_trials: int | None
    trials: Sequence[FrozenTrial]
    resting: frozenset[int] = frozenset()
    study_attrs: Mapping[str, Any] = field(default_factory=dict)

    def n_started(self) -> int:
        """Trials that count against the budget: all that were started and did not fail."""
        return sum(t.state not in {TrialState.FAIL, TrialState.WAITING} for t in self.trials)

    def n_epochs(self) -> int:
        """Epochs that all trials have reported."""
        return sum(len(t.intermediate_values) for t in self.trials)

    def running(self) -> list[FrozenTrial]:
        """Trials that some live worker is at."""
        return [t for t in self.trials if t.state == TrialState.RUNNING and t.number not in self.resting]


class Scheduler(Protocol):
    """Decides what a free worker does next. The same history gives the same decision."""

    def decide(self, history: History) -> Decision:
        """The next thing to do."""
        ...


def make_scheduler(spec: StudySpec) -> Scheduler:
    """The scheduler that a study names."""
    from hpo.schedulers.optuna import OptunaScheduler  # its module needs this one

    return {"optuna": OptunaScheduler}[spec.scheduler](spec)
