"""Carries the scheduler's decisions out until the budget is met. Knows no strategy."""

import time
from collections.abc import Collection, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import FailuresError, LeaseLostError
from hpo.leases import Lease, Owner
from hpo.objective import Workplace, run_trial
from hpo.records import Records
from hpo.schedulers import Continue, Done, History, Scheduler, Start, Suggested, Wait

WAIT_SECONDS = 0.5
MAX_FAILURES_IN_A_ROW = 3
_STUDY_ATTRS = "hpo:study_attrs"


def search(place: Workplace, scheduler: Scheduler, owner: Owner, n_trials: int | None) -> str:
    """Work on a study until it is done, or the worker is asked to stop.

    Returns:
        Why it ended, in words.

    Raises:
        FailuresError: three trials in a row failed since this call began.
        DiskFullError: no room to go on.
    """
    records = place.records
    known = frozenset(t.number for t in records.trials() if t.state.is_finished())
    while not place.stopping.asked:
        with records.store.lock():
            refuse_failures(records.trials(), known)
            found = _next(records, scheduler, owner, n_trials)
        match found:
            case Done(reason):
                return reason
            case Wait():
                time.sleep(WAIT_SECONDS)
            case Lease():
                try:
                    run_trial(place, found)
                except LeaseLostError:
                    continue  # its new owner goes on with it
    return "interrupted"


def _next(records: Records, scheduler: Scheduler, owner: Owner, n_trials: int | None) -> Lease | Wait | Done:
    """Ask the scheduler, and make the trial that it decides on ours. Called under the store's lock."""
    trials = records.trials()
    history = History(records.spec, n_trials, trials, records.resting(), _study_attrs(trials))
    decision = scheduler.decide(history)
    match decision:
        case Start(suggested, waiting):
            study, template = records.study, _template(suggested)
            if waiting is None:
                trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)  # noqa: SLF001
            else:
                trial_id = trials[waiting]._trial_id  # noqa: SLF001
                _fill(records, trial_id, template)
            return records.leases.claim(trial_id, owner)
        case Continue(number):
            return records.leases.claim(trials[number]._trial_id, owner)  # noqa: SLF001
        case Wait() | Done():
            return decision


def _fill(records: Records, trial_id: int, template: FrozenTrial) -> None:
    """Give a trial that waits in the store what was proposed for it. Its state comes last: till then it waits."""
    storage = records.study._storage  # noqa: SLF001
    for name, value in template.params.items():
        distribution = template.distributions[name]
        storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    for name, value in template.user_attrs.items():
        storage.set_trial_user_attr(trial_id, name, value)
    for name, value in template.system_attrs.items():
        storage.set_trial_system_attr(trial_id, name, value)
    storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)


def _template(suggested: Suggested) -> FrozenTrial:
    """A trial as it is stored: in one transaction, so that a kill leaves the whole of it or nothing."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(suggested.suggested),
        distributions=dict(suggested.distributions),
        user_attrs={**suggested.params, **suggested.user_attrs, "hpo.params": dict(suggested.params)},
        system_attrs={**suggested.system_attrs, _STUDY_ATTRS: dict(suggested.study_attrs)},
    )


def _study_attrs(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """What samplers keep on the study (a place in a sequence), from the trials that brought it."""
    attrs: dict[str, Any] = {}
    for trial in trials:
        attrs.update(trial.system_attrs.get(_STUDY_ATTRS, {}))
    return attrs


def refuse_failures(trials: Collection[FrozenTrial], known: frozenset[int]) -> None:
    """Stop a study whose last three trials to end have all failed; those that had ended in `known` don't count.

    Raises:
        FailuresError: they have; the message has the last one's reason.
    """
    ended = [t for t in trials if t.state.is_finished() and t.number not in known and t.datetime_complete is not None]
    last = sorted(ended, key=lambda t: (t.datetime_complete, t.number))[-MAX_FAILURES_IN_A_ROW:]
    if len(last) == MAX_FAILURES_IN_A_ROW and all(t.state == TrialState.FAIL for t in last):
        numbers = ", ".join(str(t.number) for t in last)
        reason = last[-1].user_attrs.get("hpo.reason", "no reason given")
        raise FailuresError(f"trials {numbers} failed in a row; the last one: {reason}")
