"""Carries the scheduler's decisions out until the budget is met. Knows no strategy."""

import gc
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import FailuresError, LeaseLostError, UserError
from hpo.leases import Lease, Owner
from hpo.names import OVER
from hpo.objective import Workplace, run_trial
from hpo.plan import budget_of
from hpo.records import Records
from hpo.rows import add_trial, fill_trial
from hpo.schedulers.proposals import has_fixed
from hpo.schedulers.protocol import (
    DECISIONS,
    ENDED,
    PAUSED,
    STUDY_ATTRS,
    Continue,
    Done,
    History,
    Scheduler,
    Start,
    Step,
    Suggested,
    Wait,
    has_its_epochs,
    seconds_left,
    steps_of,
)
from hpo.space import refuse_another_kind
from hpo.times import Stopwatch

WAIT_SECONDS = 0.5
MAX_FAILURES_IN_A_ROW = 3
LEAST_SECONDS = 0.5
"""A budget of seconds is used up when less than this is left: nothing is begun for it."""


def search(place: Workplace, scheduler: Scheduler, owner: Owner, n_trials: int | None) -> str:
    """Work on a study until it is done, or the worker is asked to stop.

    Returns:
        Why it ended, in words.

    Raises:
        FailuresError: three trials in a row failed since this call began.
        DiskFullError: no room to go on.
        UserError: a scheduler's decision can't be carried out.
    """
    records = place.records
    records.board.take_in(trials := records.trials())
    n_before = records.board.settled.n
    known = frozenset(t.number for t in trials[n_before:] if t.state.is_finished())
    if gc.get_freeze_count() == 0:  # of thousands of trials none is garbage: a collection need not look at them
        gc.collect()
        gc.freeze()
    watch, in_vain = Stopwatch(), False  # whether something may be claimed that nobody works on

    def decide() -> Lease | Wait | _Over:
        nonlocal in_vain
        if in_vain:
            records.leases.release_all(owner)
        in_vain = True
        return _decided(place, scheduler, owner, n_trials, n_before, known)

    records.drop_checkpoints()  # a kill may have come before: what is there decides, too
    while not place.stopping.asked:
        found = records.store.lasting(decide)
        in_vain = False
        watch.lap("service")
        match found:
            case _Over(reason, left_over):
                ended = f"{PAUSED} when the study ended"
                try:
                    for number in records.end_paused(left_over, ended, lambda: place.stopping.asked):
                        place.emit({"event": "undrawn", "trial": number})
                except LeaseLostError:
                    in_vain = True  # another worker ends them
                    continue
                return reason
            case Wait():
                time.sleep(WAIT_SECONDS)
                watch.lap("waiting")
            case Lease():
                try:
                    run_trial(place, found, watch)
                except LeaseLostError:
                    watch.take()  # its new owner goes on with it, and counts it
    return "interrupted"


@dataclass(frozen=True, slots=True)
class _Over:
    """The study is at its end; the trials at rest are ours, to be pruned with what they have."""

    reason: str
    left_over: Sequence[Lease]


def _decided(
    place: Workplace, scheduler: Scheduler, owner: Owner, n_trials: int | None, n_before: int, known: frozenset[int]
) -> Lease | Wait | _Over:
    with place.records.store.lock():
        trials = place.records.trials()
        refuse_failures(trials[n_before:], known)
        return _next(place, scheduler, owner, n_trials, trials)


def _next(
    place: Workplace, scheduler: Scheduler, owner: Owner, n_trials: int | None, trials: Sequence[FrozenTrial]
) -> Lease | Wait | _Over:
    """Ask the scheduler, and make the trial that it decides on ours. Called under the store's lock."""
    records, spec = place.records, place.records.spec
    resting = records.resting(trials)
    paused = frozenset(number for number in resting if has_its_epochs(spec, trials[number]))
    board = records.board
    board.take_in(trials)
    history = History(
        spec, n_trials, trials, paused, board.study_attrs(trials), settled=board.settled, best_first=board.order
    )
    at_work = len(history.running()) - len(resting - paused)
    budget = budget_of(spec, n_trials)
    left = seconds_left(spec, trials)
    if left < LEAST_SECONDS:
        reason = f"all {spec.timeout_seconds:g} seconds are used"
        return Wait() if at_work else _over(records, trials, resting, owner, reason, budget)
    if math.isfinite(left):
        place.stopping.deadline = time.monotonic() + left / (place.share * (1 + at_work))
    said = records.study.user_attrs.get(OVER)
    if said is not None and said["budget"] == budget and not (history.may_start() and has_fixed(spec, history)):
        # It was at its end, and was killed amid ending its trials.
        return Wait() if at_work else _over(records, trials, paused, owner, said["reason"], budget)
    if interrupted := resting - paused:  # what was decided before comes first
        return records.leases.claim(trials[min(interrupted)]._trial_id, owner)  # noqa: SLF001
    decision = scheduler.decide(history)
    match decision:
        case Start():
            return _started(records, history, decision, owner)
        case Continue():
            return _continued(records, history, decision, owner)
        case Done(reason):
            return _over(records, trials, paused, owner, reason, budget)
        case Wait():
            return decision


def _over(
    records: Records,
    trials: Sequence[FrozenTrial],
    at_rest: Collection[int],
    owner: Owner,
    reason: str,
    budget: list[Any],
) -> _Over:
    records.study.set_user_attr(OVER, {"reason": reason, "budget": budget})
    return _Over(reason, [records.leases.claim(trials[n]._trial_id, owner) for n in sorted(at_rest)])  # noqa: SLF001


def _started(records: Records, history: History, decision: Start, owner: Owner) -> Lease | Wait:
    suggested, study = decision.suggested, records.study
    for name, distribution in suggested.distributions.items():
        if before := next((t.distributions[name] for t in history.trials if name in t.distributions), None):
            refuse_another_kind(name, before, distribution)
    number = len(history.trials) if decision.waiting is None else decision.waiting
    step = Step(history.n_steps(), number, 0, decision.until_epoch, decision.why)
    template = _template(suggested, step)
    if decision.waiting is None:
        trial_id = add_trial(records.store.engine, study._study_id, template)  # noqa: SLF001
    else:
        trial_id = history.trials[number]._trial_id  # noqa: SLF001
        if not fill_trial(records.store.engine, trial_id, template):
            return Wait()  # somebody else has taken it: look again
    return records.leases.claim(trial_id, owner)


def _continued(records: Records, history: History, decision: Continue, owner: Owner) -> Lease:
    if decision.number not in history.paused:
        raise UserError(f"the scheduler continues trial {decision.number}, which is not paused")
    trial = history.trials[decision.number]
    reached = len(trial.intermediate_values)
    if decision.until_epoch is not None and decision.until_epoch <= reached:
        raise UserError(
            f"the scheduler continues trial {decision.number} until epoch {decision.until_epoch}, "
            f"and it has {reached} epochs already"
        )
    step = Step(history.n_steps(), decision.number, reached, decision.until_epoch, decision.why)
    steps = [*steps_of(trial), step]
    trial_id = trial._trial_id  # noqa: SLF001
    # Before it is claimed: a kill between the two leaves a trial that was interrupted before its first batch.
    records.study._storage.set_trial_user_attr(trial_id, DECISIONS, [s.to_json() for s in steps])  # noqa: SLF001
    return records.leases.claim(trial_id, owner)


def _template(suggested: Suggested, step: Step) -> FrozenTrial:
    """A trial as it is stored: in one transaction, so that a kill leaves the whole of it or nothing."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(suggested.suggested),
        distributions=dict(suggested.distributions),
        user_attrs={
            **suggested.params,
            **suggested.user_attrs,
            "hpo.params": dict(suggested.params),
            DECISIONS: [step.to_json()],
        },
        system_attrs={**suggested.system_attrs, STUDY_ATTRS: dict(suggested.study_attrs)},
    )


def refuse_failures(trials: Collection[FrozenTrial], known: frozenset[int]) -> None:
    """Stop a study whose last three trials to end have all failed; those that had ended in `known` don't count.

    Raises:
        FailuresError: they have; the message has the last one's reason.
    """
    ended = [t for t in trials if ENDED in t.user_attrs and t.state.is_finished() and t.number not in known]
    last = sorted(ended, key=lambda t: (t.user_attrs[ENDED], t.number))[-MAX_FAILURES_IN_A_ROW:]
    if len(last) == MAX_FAILURES_IN_A_ROW and all(t.state == TrialState.FAIL for t in last):
        numbers = ", ".join(str(t.number) for t in last)
        reason = last[-1].user_attrs.get("hpo.reason", "no reason given")
        raise FailuresError(f"trials {numbers} failed in a row; the last one: {reason}")
