"""What a study's time went to, by how its trials ended, and what ending some of them early has saved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from hpo.report_values import NONE, OUTCOMES, Table, outcome
from hpo.schedulers.protocol import SECONDS, horizon, params_of
from hpo.spec import StudySpec
from hpo.times import KINDS, total
from hpo.words import duration

ENDED_EARLY = ("pruned", "paused")
"""Outcomes of trials that others were better than; a diverged one had nothing left to be saved."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the trials of one outcome have taken: how many they are, their epochs, their device seconds."""

    outcome: str
    n_trials: int
    n_epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """Seconds that ending trials early has saved, as estimated; of how many such trials, out of how many."""

    seconds: float
    n_estimated: int
    n_trials: int


def spent(trials: Sequence[FrozenTrial]) -> list[Spent]:
    """By outcome, those that there are."""
    groups = {name: [t for t in trials if outcome(t) == name] for name in OUTCOMES}
    return [
        Spent(name, len(of), sum(len(t.intermediate_values) for t in of), sum(map(seconds_of, of)))
        for name, of in groups.items()
        if of
    ]


def saved(spec: StudySpec, trials: Sequence[FrozenTrial]) -> Saved:
    """Of each trial that was ended early: the epochs that it had left, times its own seconds an epoch.

    One that has no epoch, no time, or no known end gives no estimate.
    """
    early = [t for t in trials if outcome(t) in ENDED_EARLY]
    estimates = [seconds for t in early for seconds in _seconds_left(spec, t)]
    return Saved(sum(estimates), len(estimates), len(early))


def _seconds_left(spec: StudySpec, trial: FrozenTrial) -> Iterator[float]:
    longest, n_epochs, seconds = horizon(spec, params_of(trial)), len(trial.intermediate_values), seconds_of(trial)
    if longest is not None and n_epochs and seconds:
        yield max(0, longest - n_epochs) * seconds / n_epochs


def seconds_of(trial: FrozenTrial) -> float:
    """Device seconds that a trial has taken; 0 where nothing was counted."""
    found = trial.user_attrs.get(SECONDS, 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


def saved_words(spec: StudySpec, trials: Sequence[FrozenTrial]) -> str:
    """What was saved, and how that is estimated; empty where no trial was ended early."""
    found = saved(spec, trials)
    if not found.n_trials:
        return ""
    if not found.n_estimated:
        return (
            f"What ending {found.n_trials} trials early has saved can't be estimated: of none of them are the end, the "
            "epochs and the time known."
        )
    left_out = found.n_trials - found.n_estimated
    return (
        f"{_what(trials)} saved about {duration(found.seconds)}: for each of {found.n_estimated} such trials, "
        "the epochs that it had left times its own seconds an epoch."
        + (f" {left_out} more gave no estimate: they have no epoch, no time or no known end." if left_out else "")
    )


def _what(trials: Sequence[FrozenTrial]) -> str:
    names = [word for word, name in (("pruning", "pruned"), ("pausing", "paused")) if name in set(map(outcome, trials))]
    return f"{' and '.join(names).capitalize()} {'have' if len(names) > 1 else 'has'}"


def times_table(trials: Sequence[FrozenTrial]) -> Table:
    """Trials, epochs and device time by outcome."""
    found = spent(trials)
    whole = sum(one.seconds for one in found)
    rows = [
        [
            one.outcome,
            str(one.n_trials),
            str(one.n_epochs),
            duration(one.seconds) if one.seconds else NONE,
            f"{100 * one.seconds / whole:.1f} %" if whole else NONE,
            OUTCOMES[one.outcome],
        ]
        for one in found
    ]
    return Table(["outcome", "trials", "epochs", "device time", "share", "which is"], rows)


def kinds(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Seconds of the workers by kind; empty where none were counted."""
    found = total(trials)
    return {kind: found[kind] for kind in KINDS} if sum(found.values()) > 0 else {}
