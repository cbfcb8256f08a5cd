"""Creates a study, or finds it and makes sure that it is still the same one."""

import json
import logging
import shutil
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hpo import space
from hpo.errors import UserError, in_a_line
from hpo.leases import Leases, has_live_owners
from hpo.outbox import Outbox, open_outbox
from hpo.schedulers.protocol import PAUSED, has_its_epochs
from hpo.spec import StudySpec, Trainer
from hpo.storage import Store
from hpo.tracked import StudyIdentity, log_best, open_parent, rest_run
from hpo.whole import write_whole

log = logging.getLogger(__name__)

NOT_COMPARED = {"device", "dataset"}
"""Parts of a trainer's description that may differ when a study goes on."""


@dataclass(frozen=True, slots=True)
class OpenStudy:
    """A study that is there, is the same as before, and whose trials without an owner are known."""

    study: optuna.Study
    identity: StudyIdentity
    outbox: Outbox
    n_trials: int | None


def description_of(trainer: Trainer) -> dict[str, Any]:
    """What a trainer says of itself, as JSON keeps it; empty where it says nothing.

    Raises:
        UserError: `describe` raises, or gives what JSON can't keep.
    """
    describe = getattr(trainer, "describe", None)
    if describe is None:
        return {}
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(describe()), allow_nan=False))
    except Exception as error:  # the user's code
        raise UserError(
            f"describe of the trainer must return names and values as JSON has them: {in_a_line(error)}"
        ) from error
    return found


def open_study(
    spec: StudySpec, store: Store, leases: Leases, trainer: Trainer, folder: Path, outboxes: Path, n_trials: int | None
) -> OpenStudy:
    """Create the study, or resume it; settle what a crash has left. Called by every worker, under the store's lock.

    Args:
        spec: the study's declaration.
        store: Optuna's.
        leases: beside it.
        trainer: describes itself, where it can.
        folder: `trials/<study>`.
        outboxes: the folder of outboxes.
        n_trials: the budget that the command line sets anew, or None.

    Raises:
        UserError: the study was made with another space, direction, seed, metric, data or network.
    """
    leases.create_table()
    study = optuna.create_study(
        study_name=spec.name,
        storage=store.storage,
        direction=spec.direction if spec.name not in optuna.get_all_study_names(store.storage) else None,
        load_if_exists=True,
        sampler=RandomSampler(),  # never asked: it costs nothing when a trial is told
    )
    description = description_of(trainer)
    facts = _facts(spec, description)
    attrs = study.user_attrs
    if "hpo.facts" not in attrs:
        if study.get_trials(deepcopy=False):
            raise UserError(f"study {spec.name!r} in {store} was not made by hpo.run; use a new name")
        study.set_user_attr("hpo.study_id", uuid.uuid4().hex)
        study.set_user_attr("hpo.facts", facts)
        attrs = study.user_attrs
    else:
        if any(t.state != TrialState.FAIL for t in study.get_trials(deepcopy=False)):
            refuse(spec, changes(spec, study, description))
        if attrs["hpo.facts"] != facts:
            log.warning("study %s: its search space is wider than before, and can't become narrower", spec.name)
            study.set_user_attr("hpo.facts", facts)
    if n_trials is not None:
        study.set_user_attr("hpo.n_trials", n_trials)
    identity = StudyIdentity(attrs["hpo.study_id"], spec.name, description)
    take_folder(folder, identity.study_id, leases.owners)
    outbox = open_outbox(outboxes, identity.study_id)
    open_parent(outbox, identity, spec, str(store))
    _settle(spec, study, leases, outbox, folder)
    budget = n_trials if n_trials is not None else attrs.get("hpo.n_trials", spec.n_trials)
    return OpenStudy(study, identity, outbox, budget)


def _facts(spec: StudySpec, description: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "space": space.distributions(spec.suggest),
        "seed": spec.seed,
        "metric": spec.metric,
        "value": spec.value,
        "trainer": _compared(description),
    }


def _compared(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name not in NOT_COMPARED}


def changes(spec: StudySpec, study: optuna.Study, description: Mapping[str, Any]) -> list[str]:
    """What makes a study another one than its stored trials are of, in words.

    Args:
        spec: its declaration now.
        study: as it is stored; made by this service.
        description: of its trainer now.
    """
    return [*searched_otherwise(spec, study), *measured_otherwise(spec, study), *trained_otherwise(study, description)]


def searched_otherwise(spec: StudySpec, study: optuna.Study) -> list[str]:
    """Of `changes` those of the search: its space, and its seed."""
    before = study.user_attrs.get("hpo.facts")
    if before is None:  # its first command was killed as it began
        return []
    now = space.distributions(spec.suggest)
    changed = [f"the search space: {words}" for words in space.changes(before["space"], now)]
    return changed if before["seed"] == spec.seed else [*changed, f"seed {before['seed']}, now {spec.seed}"]


def measured_otherwise(spec: StudySpec, study: optuna.Study) -> list[str]:
    """Of `changes` those of a trial's value: direction, metric, and which epoch's it is."""
    before = {"direction": study.direction.name.lower(), **study.user_attrs.get("hpo.facts", {})}
    now = {"direction": spec.direction, "metric": spec.metric, "value": spec.value}
    return [f"{name} {before[name]}, now {now[name]}" for name in now if before.get(name, now[name]) != now[name]]


def trained_otherwise(study: optuna.Study, description: Mapping[str, Any]) -> list[str]:
    """Of `changes` those of what is trained: data and network."""
    before = study.user_attrs["hpo.facts"]["trainer"]
    now = _compared(description)
    return [
        f"{name} {before.get(name)!s:.60}, now {now.get(name)!s:.60}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def refuse(spec: StudySpec, changed: Sequence[str]) -> None:
    """Let nothing else pass for a stored study.

    Raises:
        UserError: something has changed; the message says what.
    """
    if changed:
        raise UserError(
            f"study {spec.name!r} was made with another configuration; use a new name, or change back:\n  "
            + "\n  ".join(changed)
        )


def take_folder(folder: Path, study_id: str, owners: Path) -> None:
    """Make the trials' folder this study's: that of another study of the same name is moved aside, ours moved back.

    Raises:
        UserError: workers are at work here, on that other study perhaps.
    """
    mark = folder / ".study_id"
    if folder.exists():
        owner = mark.read_text().strip() if mark.exists() else "unknown"
        if owner == study_id:
            return
        if any(folder.iterdir()):
            if has_live_owners(owners):
                raise UserError(f"{folder} is another study's, and workers are at work here; use another --workdir")
            aside = folder.with_name(f"{folder.name}.before-{owner[:8]}")
            folder.rename(aside)
            log.warning("%s was of another study, which the store does not hold: it is %s now", folder, aside)
        else:
            folder.rmdir()
    ours = folder.with_name(f"{folder.name}.before-{study_id[:8]}")
    if ours.exists():
        ours.rename(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(mark, study_id.encode())


def _settle(spec: StudySpec, study: optuna.Study, leases: Leases, outbox: Outbox, folder: Path) -> None:
    """Bring MLflow's side up to what Optuna's store says: what a kill has left between the two."""
    trials = study.get_trials(deepcopy=False)
    for trial in abandoned(trials, leases):
        rest_run(outbox, trial.number, rest_words(spec, trial))
    ended = [t.number for t in trials if t.state.is_finished()]
    if not spec.reuse_epochs:
        for number in ended:
            shutil.rmtree(folder / str(number) / "checkpoints", ignore_errors=True)
    if ended:
        log_best(outbox, spec, trials, folder)


def abandoned(trials: Sequence[FrozenTrial], leases: Leases) -> list[FrozenTrial]:
    """Those of a study's trials whose worker is gone without a word; they are freed by this."""
    gone = set(leases.abandoned())
    return [t for t in trials if t.state == TrialState.RUNNING and t._trial_id in gone]  # noqa: SLF001


def rest_words(spec: StudySpec, trial: FrozenTrial) -> str:
    """Why a trial rests that nobody works on: it was paused, or interrupted."""
    return PAUSED if has_its_epochs(spec, trial) else "interrupted"


def check_params(spec: StudySpec, trainer: Trainer) -> None:
    """Let the trainer refuse, before any trial, what it can't train with: what is enqueued, a sample of each branch.

    Raises:
        UserError: it refuses; the message names the params.
    """
    check = getattr(trainer, "check", None)
    for position, enqueued in enumerate(spec.enqueue):
        params = enqueued_params(spec, position)
        _checked(check, params, f"enqueue[{position}] {dict(enqueued)}")
    for corner in space.CORNERS:
        for branch in space.walk(spec.suggest, corner):
            _checked(check, branch.params, f"suggest may give {branch.params}")


def _checked(check: Any, params: Mapping[str, Any], what: str) -> None:
    if check is None:
        return
    try:
        check(params)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{what}: {error}") from None


def enqueued_params(spec: StudySpec, position: int) -> Mapping[str, Any]:
    """What a trainer gets of an enqueued configuration.

    Raises:
        UserError: it is not in the space; the message names its position.
    """
    enqueued = dict(spec.enqueue[position])
    study = optuna.create_study(sampler=RandomSampler(0))
    study.enqueue_trial(enqueued)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a value is out of its range is said below, as an error
        trial = study.ask()
        try:
            params = spec.suggest(trial)
        except (ValueError, OverflowError) as error:
            raise UserError(f"enqueue[{position}]: {error}") from None
    for name, value in enqueued.items():
        if name not in trial.params:
            raise UserError(f"enqueue[{position}]: {name} is not suggested; there are {', '.join(trial.params)}")
        distribution = trial.distributions[name]
        if not distribution._contains(distribution.to_internal_repr(value)):  # noqa: SLF001
            raise UserError(f"enqueue[{position}]: {name} = {value!r} is outside {distribution}")
    return params
