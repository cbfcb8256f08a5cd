"""What can be wrong with what a study is kept in, found one by one, and how it is mended where that loses nothing."""

import platform
import shutil
import sqlite3
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

from hpo.errors import SPARE_BYTES, HpoError
from hpo.leases import Leases, dead_owners, remove_unlocked
from hpo.loading import load_spec
from hpo.names import OUTBOX
from hpo.notebook import leases_of, live_in, own_folder, state_of, study_id_of
from hpo.options import bytes_in_words, tracking_uri
from hpo.outbox import PARENT, Outbox, open_outbox
from hpo.prepared import prepared_here
from hpo.resume import abandoned, changes, description_of, rest_words
from hpo.spec import StudySpec, Trainer
from hpo.storage import Store, existing_store, load_study
from hpo.tracked import RUN_STATUS, log_end, parent_status, ranking, rest_run
from hpo.urls import is_sqlite, sqlite_path

_PACKAGES = ("torch", "optuna", "mlflow", "pandas", "numpy", "sqlalchemy")
_NAMED = 5
"""So many trials are named in a line, and the others counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found.

    Attributes:
        area: what was looked at.
        text: what was seen, in a line.
        is_fault: whether something is wrong.
        mend: mends it, without losing anything, and says what it did; None where nothing here can.
    """

    area: str
    text: str
    is_fault: bool = False
    mend: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class _Study:
    """A study with all places that it is kept in.

    Attributes:
        folder: of its trials; None where it is not here.
        outbox: None where it is not here.
        live: numbers of the trials that somebody works on.
        is_alone: whether its store is one machine's, and so all that MLflow is told comes from here.
    """

    spec: StudySpec
    stored: optuna.Study
    study_id: str
    trials: Sequence[FrozenTrial]
    leases: Leases | None
    folder: Path | None
    outbox: Outbox | None
    live: frozenset[int]
    is_alone: bool

    @property
    def resting(self) -> list[FrozenTrial]:
        """Trials that run in the store, and that nobody works on."""
        return [t for t in self.trials if t.state.name == "RUNNING" and t.number not in self.live]


def checks(options: Namespace) -> Iterator[Finding]:
    """Look at everything, in the order in which one rests on the other.

    Args:
        options: `study`, and where things are, as `hpo.doctor` has them.

    Raises:
        UserError: no such study or store.
    """
    spec, store = load_spec(options.study), existing_store(options.storage)
    yield _versions()
    yield from _store(store)
    study = _opened(spec, store, Path(options.workdir))
    yield from _state(study, store)
    yield from _leases(study)
    trainer = None
    try:
        trainer = prepared_here(spec, device=options.device, data=options.data)
    except HpoError as error:
        yield Finding("data", " ".join(str(error).splitlines()), is_fault=True)
    if trainer is not None:
        yield from _trainer(study, trainer)
    yield from _files(study, trainer, Path(options.workdir))
    yield from _outbox(study)
    yield from _mlflow(study, tracking_uri(options.tracking_uri))


def _versions() -> Finding:
    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return Finding("versions", ", ".join(found))


def _opened(spec: StudySpec, store: Store, workdir: Path) -> _Study:
    stored = load_study(store, spec.name)
    study_id, trials = study_id_of(stored), stored.get_trials(deepcopy=False)
    leases = leases_of(store, workdir)
    is_here = (Path(OUTBOX) / f"{study_id}.db").is_file()
    outbox = open_outbox(Path(OUTBOX), study_id) if is_here else None
    live = frozenset(live_in(leases, trials))
    return _Study(
        spec, stored, study_id, trials, leases, own_folder(stored, workdir), outbox, live, is_sqlite(store.url)
    )


def _store(store: Store) -> Iterator[Finding]:
    if not is_sqlite(store.url):
        yield Finding("store", f"{store} answers")
        return
    path = sqlite_path(store.url)
    with store.engine.begin() as connection:
        said = list(connection.scalars(sqlalchemy.text("PRAGMA integrity_check(3)")))
    size = bytes_in_words(path.stat().st_size)
    if said == ["ok"]:
        yield Finding("store", f"{path}, {size}, is whole")
    else:
        words = "; ".join(str(line) for line in said)
        yield Finding("store", f"{path} is damaged ({words}); a copy: sqlite3 {path} .recover", is_fault=True)


def _state(study: _Study, store: Store) -> Iterator[Finding]:
    n_ended = sum(t.state.is_finished() for t in study.trials)
    state = state_of(study.stored, study.trials, at_work=bool(study.live))
    yield Finding("study", f"{study.spec.name}, {state}: {len(study.trials)} trials, {n_ended} of them ended")
    places = [sqlite_path(store.url).parent] if is_sqlite(store.url) else []
    places += [study.folder] if study.folder is not None and study.folder.is_dir() else []
    fullest = min(places, key=lambda place: shutil.disk_usage(place).free, default=None)
    if state == "done" or fullest is None:
        return
    free = shutil.disk_usage(fullest).free
    if free < SPARE_BYTES:
        yield Finding("study", f"{fullest}: {bytes_in_words(free)} free, need 200 MB to go on", is_fault=True)


def _leases(study: _Study) -> Iterator[Finding]:
    leases = study.leases
    if leases is None:
        yield Finding("leases", "no worker was ever at it")
        return
    rows = leases.look()
    its = {t._trial_id: t for t in study.trials}  # noqa: SLF001
    held = {row.trial_id for row in rows if row.owner is not None}
    orphans = [t for t in study.resting if t._trial_id in held]  # noqa: SLF001
    if orphans:
        text = f"{_trials(orphans)}: the worker is gone without a word; the next hpo.run goes on with it"
        yield Finding("leases", text, is_fault=True, mend=partial(_free, study, leases, orphans))
    stale = [its[row.trial_id] for row in rows if row.trial_id in its and its[row.trial_id].state.is_finished()]
    if stale:
        text = f"{_trials(stale)}: ended, and still leased"
        yield Finding("leases", text, is_fault=True, mend=partial(_drop, leases, stale))
    if files := dead_owners(leases.owners, {Path(row.owner_file).name for row in rows if row.owner is not None}):
        text = f"{len(files)} files in {leases.owners} of workers that are gone, and that own nothing"
        yield Finding("leases", text, is_fault=True, mend=partial(_remove, files))
    if not (orphans or stale or files):
        n = len(study.live)
        yield Finding(
            "leases", f"{_trials(study.live)}: at work" if n else "nobody is at work, and nothing is left over"
        )


def _free(study: _Study, leases: Leases, orphans: Sequence[FrozenTrial]) -> str:
    for trial in abandoned(study.trials, leases):
        if study.outbox is not None:
            rest_run(study.outbox, trial.number, rest_words(study.spec, trial))
    return f"{_trials(orphans)}: free for the next worker"


def _drop(leases: Leases, ended: Sequence[FrozenTrial]) -> str:
    for trial in ended:
        leases.drop(trial._trial_id)  # noqa: SLF001
    return f"{_trials(ended)}: leased no more"


def _remove(files: Sequence[Path]) -> str:
    for file in files:
        remove_unlocked(file)
    return f"{len(files)} files removed"


def _trainer(study: _Study, trainer: Trainer) -> Iterator[Finding]:
    description = description_of(trainer)
    changed = changes(study.spec, study.stored, description)
    digest = description.get("data_digest")
    if changed:
        text = f"another configuration than the study was made with: {'; '.join(changed)}"
        yield Finding("data", text, is_fault=True)
    else:
        yield Finding("data", f"as the study was made with{'' if digest is None else f': {digest!s:.16}'}")
    if "device" in description:
        yield Finding("device", str(description["device"]))


def _files(study: _Study, trainer: Trainer | None, workdir: Path) -> Iterator[Finding]:
    folder, spec = study.folder, study.spec
    if folder is None:
        if any(t.intermediate_values for t in study.trials):
            text = f"{workdir / spec.name} is not here: is --workdir another one, or are they on another machine?"
            yield Finding("files", text, is_fault=True)
        return
    ended = [t for t in study.trials if t.state.is_finished()]
    left_over = [] if spec.reuse_epochs else [t for t in ended if (folder / str(t.number) / "checkpoints").is_dir()]
    if left_over:
        folders = [folder / str(t.number) / "checkpoints" for t in left_over]
        text = f"{_trials(left_over)}: ended, and a checkpoint is left over"
        yield Finding("files", text, is_fault=True, mend=partial(_remove_folders, folders))
    best = ranking(spec, study.trials)[: spec.keep_weights]
    kept = {t.number for t in best if (folder / str(t.number) / "weights").is_dir()}  # a trainer may keep none at all
    lacking = [t for t in best if kept and t.number not in kept and (folder / str(t.number)).is_dir()]
    faults = [f"{_trials(lacking)}: among the best, and its weights are not here"] if lacking else []
    find = getattr(trainer, "faults", None)
    if find is not None:
        for trial in [*study.resting, *best]:
            faults += [f"trial {trial.number}: {fault}" for fault in find(folder / str(trial.number))]
    for fault in faults:
        yield Finding("files", fault, is_fault=True)
    if not faults and not left_over:
        yield Finding("files", f"{folder}: what trials go on from, and the best weights, are whole")


def _remove_folders(folders: Sequence[Path]) -> str:
    for each in folders:
        shutil.rmtree(each, ignore_errors=True)
    return f"{len(folders)} folders removed"


def _outbox(study: _Study) -> Iterator[Finding]:
    if study.outbox is None:
        if study.trials:
            text = f"{OUTBOX}/{study.study_id}.db is not here: what MLflow lacks of earlier trials can't be delivered"
            yield Finding("outbox", text, is_fault=True)
        return
    n_refused, n_waiting = study.outbox.n_refused(), study.outbox.n_waiting()
    if n_refused:
        yield Finding("outbox", f"MLflow has refused {n_refused} rows; hpo.run said which")
    at_work = ": the study is at work" if study.live else ""  # else it is told, and delivered, with MLflow
    yield Finding("outbox", f"{n_waiting} rows wait for MLflow{at_work}" if n_waiting else "MLflow has all of it")


def _mlflow(study: _Study, uri: str) -> Iterator[Finding]:
    from hpo.experiments import runs_of

    try:
        statuses = runs_of(uri, study.spec.name, study.study_id)
    except HpoError as error:
        yield Finding("MLflow", str(error), is_fault=True)
        return
    outbox = study.outbox
    wrong, lost = list(_wrong_runs(study, statuses)), _lost_runs(study, statuses)
    if lost:
        text = f"{_trials(lost)}: no run, and {OUTBOX}/ knows nothing of it"
        yield Finding("MLflow", text, is_fault=True)
    n_waiting = 0 if outbox is None or study.live else outbox.n_waiting()
    if wrong or n_waiting:
        words = [f"{n_waiting} rows are not delivered"] if n_waiting else []
        words += [text for _, text in wrong[:_NAMED]]
        if len(wrong) > _NAMED:
            words.append(f"and {len(wrong) - _NAMED} more")
        mend = None if outbox is None else partial(_tell, study, outbox, uri, [run for run, _ in wrong], statuses)
        yield Finding("MLflow", "; ".join(words), is_fault=True, mend=mend)
    elif not lost:
        yield Finding("MLflow", f"{uri}: {len(statuses)} runs, each as its trial is")


def _lost_runs(study: _Study, statuses: Mapping[str, str]) -> list[FrozenTrial]:
    """Trials that have a value, and of which MLflow knows nothing and can't be told."""
    ended = [t for t in study.trials if t.state.name in {"COMPLETE", "PRUNED"}] if study.is_alone else []
    without = {str(t.number): t for t in ended if str(t.number) not in statuses}
    return [without[run] for run in (without if study.outbox is None else study.outbox.strangers(without))]


def _wrong_runs(study: _Study, statuses: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Runs that say something else than the store, each with what is wrong."""
    for trial in study.trials:
        run = str(trial.number)
        if (
            trial.state.name == "WAITING"
            or trial.number in study.live
            or (run not in statuses and not _is_known(study, run))
        ):
            continue
        wanted = RUN_STATUS.get(trial.state, "SCHEDULED")
        if run not in statuses:
            yield run, f"trial {run} has no run"
        elif statuses[run] != wanted:
            yield run, f"trial {run} is {trial.state.name}, and its run {statuses[run]}"
    if not study.live and statuses.get(PARENT) == "RUNNING":
        yield PARENT, "the study's own run is RUNNING, and nobody works on it"


def _is_known(study: _Study, run: str) -> bool:
    return study.outbox is not None and study.outbox.knows(run)


def _tell(study: _Study, outbox: Outbox, uri: str, runs: Sequence[str], statuses: Mapping[str, str]) -> str:
    """Let MLflow have what it lacks.

    Raises:
        HpoError: it takes no more.
    """
    from hpo.delivery import deliver_all

    by_run = {str(t.number): t for t in study.trials}
    for run in runs:
        if run not in statuses:
            outbox.set_run_id(run, None, uri)
        elif run == PARENT:
            is_done = state_of(study.stored, study.trials, at_work=False) == "done"
            parent_status(outbox, "FINISHED" if is_done else "SCHEDULED", words="done" if is_done else "interrupted")
        elif by_run[run].state.is_finished():
            log_end(outbox, by_run[run].number, by_run[run].state, by_run[run].user_attrs.get("hpo.reason"))
        else:
            rest_run(outbox, by_run[run].number, rest_words(study.spec, by_run[run]))
    problem = deliver_all(uri, Path(OUTBOX), outbox, study.spec.name, study.study_id)
    if problem is not None:
        raise HpoError(f"MLflow at {uri} takes no more ({problem})")
    return "delivered"


def _trials(those: Sequence[FrozenTrial] | frozenset[int]) -> str:
    numbers = sorted(t if isinstance(t, int) else t.number for t in those)
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"trial{'s'[: len(numbers) != 1]} {', '.join(map(str, numbers[:_NAMED]))}{more}"
