"""Which trial gets the next epochs: one pure decision over the study's history. No I/O, no clock, no globals.

A scheduler is asked under the store's lock, whenever a worker is free; the search carries its decision out and knows
no strategy. Since a trial can be called again and goes on, pausing and promoting are no more than a decision.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.spec import StudySpec

DECISIONS = "hpo.decisions"
"""The user attribute under which a trial keeps what was decided about it: a list of steps as JSON has them."""
SECONDS = "hpo.seconds"
"""The user attribute that counts a trial's device seconds."""
DROPPED = "hpo.dropped_epochs"
"""The user attribute of a paused trial whose checkpoint was let go of: epochs that must be trained again first."""
RESTED = "hpo.rested"
"""The user attribute that says with how many epochs a paused trial came to rest: its files are of that epoch, then."""
DIVERGED = "diverged"
"""How the reason of a trial begins whose loss or metric was not finite."""
ENDED = "hpo.ended"
"""The user attribute that keeps as the how-manieth a trial ended: clocks of several machines need not agree."""
STUDY_ATTRS = "hpo:study_attrs"
"""The system attribute under which a trial keeps what its sampler put on the study."""
PAUSED = "paused"
"""How the reason of a trial begins that was still paused when its study ended."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """A configuration as it was proposed: everything that Optuna keeps of it."""

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
    """Begin a new trial, or the one that somebody has put into the store to be run (`waiting`, its number).

    Attributes:
        until_epoch: how many epochs in all before it is paused; None: to its end.
        why: what a person should know of the decision, as JSON takes it.
    """

    suggested: Suggested
    waiting: int | None = None
    until_epoch: int | None = None
    why: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on with a paused trial until it has `until_epoch` epochs in all; None: to its end."""

    number: int
    until_epoch: int | None = None
    why: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a running trial reports."""


@dataclass(frozen=True, slots=True)
class Done:
    """The study is at its end."""

    reason: str


Decision = Start | Continue | Wait | Done


@dataclass(frozen=True, slots=True)
class Step:
    """A decision that was carried out: the `order`-th of its study gave trial `number` the epochs [start, until)."""

    order: int
    number: int
    start: int
    until: int | None
    why: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a trial keeps it."""
        return {"order": self.order, "from": self.start, "to": self.until, "why": dict(self.why)}


def steps_of(trial: FrozenTrial) -> list[Step]:
    """What was decided about a trial, in order."""
    kept = trial.user_attrs.get(DECISIONS, [])
    return [Step(s["order"], trial.number, s["from"], s["to"], s["why"]) for s in kept]


def horizon(spec: StudySpec, params: Mapping[str, Any]) -> int | None:
    """How many epochs a trial may have: its own param `epochs`, where it has one, and at most `max_epochs`."""
    own = params.get("epochs")
    known = [n for n in (own, spec.max_epochs) if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return min(known, default=None)


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """What the trainer gets for a trial, as the service kept it."""
    return dict(trial.user_attrs.get("hpo.params", trial.params))


def trial_value(spec: StudySpec, trial: FrozenTrial, n_epochs: int | None = None) -> float | None:
    """A trial's value after its first `n_epochs` (all by default): its best or its last epoch's; None without any."""
    values = [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)][:n_epochs]
    if not values:
        return None
    if spec.value == "last":
        return values[-1]
    return max(values) if spec.direction == "maximize" else min(values)


def seconds_left(spec: StudySpec, trials: Sequence[FrozenTrial]) -> float:
    """Device seconds of the budget that no trial has taken yet; infinite without a bound."""
    if spec.timeout_seconds is None:
        return math.inf
    return max(0.0, spec.timeout_seconds - math.fsum(t.user_attrs.get(SECONDS, 0.0) for t in trials))


def has_diverged(trial: FrozenTrial) -> bool:
    """Whether a trial was ended by a loss or a metric that was not finite."""
    return _was_pruned_as(DIVERGED, trial)


def was_paused(trial: FrozenTrial) -> bool:
    """Whether a trial was pruned only since its study had ended."""
    return _was_pruned_as(PAUSED, trial)


def _was_pruned_as(words: str, trial: FrozenTrial) -> bool:
    return trial.state == TrialState.PRUNED and str(trial.user_attrs.get("hpo.reason", "")).startswith(words)


def has_its_epochs(spec: StudySpec, trial: FrozenTrial) -> bool:
    """Whether a trial without an owner is paused: it has what was decided, came to rest, and its end is further away.

    One that was killed between its last epoch's report and its rest was interrupted: its files may be older.
    """
    until, n_epochs = pause_at(spec, trial), len(trial.intermediate_values)
    return until is not None and n_epochs >= until and trial.user_attrs.get(RESTED) == n_epochs


def pause_at(spec: StudySpec, trial: FrozenTrial) -> int | None:
    """With how many epochs a trial is to be paused, by the last decision about it; None where it goes to its end."""
    steps, longest = steps_of(trial), horizon(spec, params_of(trial))
    until = steps[-1].until if steps else None
    return None if until is None or (longest is not None and until >= longest) else until


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the first `n` trials of a study, which have all ended, come to: nobody need look at them again.

    Attributes:
        n: how many.
        n_started: of them, those that count against the budget.
        n_steps: decisions that were carried out.
        n_epochs: epochs that were trained.
    """

    n: int = 0
    n_started: int = 0
    n_steps: int = 0
    n_epochs: int = 0

    def and_then(self, trials: Sequence[FrozenTrial]) -> "Settled":
        """With the next ones."""
        return Settled(
            n=self.n + len(trials),
            n_started=self.n_started + n_started(trials),
            n_steps=self.n_steps + _n_steps(trials),
            n_epochs=self.n_epochs + sum(len(t.intermediate_values) + has_diverged(t) for t in trials),
        )


def n_started(trials: Sequence[FrozenTrial]) -> int:
    """How many of these trials count against the budget: all that were started and did not fail."""
    return sum(t.state is not TrialState.FAIL and t.state is not TrialState.WAITING for t in trials)


def _n_steps(trials: Sequence[FrozenTrial]) -> int:
    return sum(len(t.user_attrs.get(DECISIONS, ())) for t in trials if t.state is not TrialState.WAITING)


@dataclass(frozen=True)
class History:
    """What a scheduler decides on.

    Attributes:
        spec: the study: its space, seed, direction and bounds among it.
        n_trials: the budget of trials that do not fail; None for no bound.
        trials: all of them, in the order of their numbers, with intermediate values. One that is RUNNING and not
            `paused` is being trained, or will be gone on with before anything is decided.
        paused: numbers of trials that are at rest and have all the epochs they were to have.
        study_attrs: what samplers have kept on the study.
        settled: of the first of them.
        best_first: (rank, number) of the trials whose values count, best first; made from `trials` where it is empty.
    """

    spec: StudySpec
    n_trials: int | None
    trials: Sequence[FrozenTrial]
    paused: frozenset[int] = frozenset()
    study_attrs: Mapping[str, Any] = field(default_factory=dict)
    settled: Settled = Settled()
    best_first: Sequence[tuple[float, int]] = ()

    @cached_property
    def open(self) -> Sequence[FrozenTrial]:
        """The trials that are not settled."""
        return self.trials[self.settled.n :]

    def n_started(self) -> int:
        """Trials that count against the budget: all that were started and did not fail."""
        return self.settled.n_started + n_started(self.open)

    def may_start(self) -> bool:
        """Whether the budget of trials has room for one more."""
        return self.n_trials is None or self.n_started() < self.n_trials

    @cached_property
    def steps(self) -> list[Step]:
        """Every decision that was carried out, in order."""
        begun = (t for t in self.trials if t.state != TrialState.WAITING)
        return sorted((s for t in begun for s in steps_of(t)), key=lambda s: s.order)

    def n_steps(self) -> int:
        """How many decisions were carried out."""
        return self.settled.n_steps + _n_steps(self.open)

    def best(self, n: int) -> list[int]:
        """Numbers of the best trials whose values count."""
        if self.best_first:
            return [number for _, number in self.best_first[:n]]
        counted = (t for t in self.trials if t.state is TrialState.COMPLETE or was_paused(t))
        ranks = ((-self.spec.sign * t.value, t.number) for t in counted if t.value is not None)
        return [number for _, number in heapq.nsmallest(n, ranks)]

    def horizon(self, trial: FrozenTrial) -> int | None:
        """How many epochs a trial may have; None: unknown."""
        return horizon(self.spec, params_of(trial))

    def running(self) -> list[FrozenTrial]:
        """Trials that are being trained."""
        return [t for t in self.open if t.state is TrialState.RUNNING and t.number not in self.paused]

    def ended(self, reason: str) -> Wait | Done:
        """The study is at its end as soon as no trial runs any more."""
        return Wait() if self.running() else Done(reason)

    def target(self, trial: FrozenTrial) -> int:
        """Epochs that a running trial will have when its step ends, if nothing ends it before."""
        steps = steps_of(trial)
        until = steps[-1].until if steps else None
        aim = until if until is not None else self.horizon(trial)
        return max(len(trial.intermediate_values), aim or 0)

    def epochs_left(self) -> int | None:
        """Epochs of the budget that are neither trained nor promised to a running trial; None for no bound."""
        if self.spec.n_epochs is None:
            return None
        promised = {t.number: self.target(t) for t in self.running()}
        # An epoch in which a trial diverged is trained and not reported.
        used = sum(promised.get(t.number, len(t.intermediate_values) + has_diverged(t)) for t in self.open)
        return max(0, self.spec.n_epochs - self.settled.n_epochs - used)

    def is_over(self) -> str | None:
        """Why the study is at its end whatever the scheduler would like, in words; None where it is not.

        While trials run that is not yet the end: they may fail, or end early.
        """
        if self.epochs_left() == 0:
            return f"all {self.spec.n_epochs} epochs are trained"
        return None


_Timed = TypeVar("_Timed", Start, Continue)


def within_budget(decision: _Timed, history: History) -> _Timed:
    """The same decision, going no further than the budget of epochs."""
    left = history.epochs_left()
    if left is None:
        return decision
    if isinstance(decision, Continue):
        trial = history.trials[decision.number]
        reached, longest = len(trial.intermediate_values), history.horizon(trial)
    else:
        reached, longest = 0, horizon(history.spec, decision.suggested.params)
    aim = decision.until_epoch if decision.until_epoch is not None else longest
    if aim is not None and aim <= reached + left:
        return decision
    return replace(decision, until_epoch=reached + left)


class Scheduler(Protocol):
    """Decides what a free worker does next. The same history gives the same decision."""

    def decide(self, history: History) -> Decision:
        """The next thing to do."""
        ...
