"""`python -m hpo.studies`: what studies a store has, and their housekeeping: delete one, enqueue in one, make room.

Exit codes: 0 done, 1 else (MLflow is not reached), 2 something for you to mend.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import UserError
from hpo.names import CONFIRMS, OUTBOX, sibling_name
from hpo.options import (
    add_places,
    bytes_in_words,
    check_configurations,
    command,
    ended,
    freed_with,
    read_configurations,
    size_of,
    study_name,
    tracking_uri,
)
from hpo.words import duration

if TYPE_CHECKING:  # optuna takes half a second to import, and `--help` needs none of it
    from optuna import Study
    from optuna.trial import FrozenTrial

    from hpo.confirmation import Confirmation
    from hpo.leases import Leases
    from hpo.spec import StudySpec
    from hpo.storage import Store

_LOOK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    if options.delete is not None:
        return ended(lambda: delete(options))
    if options.enqueue is not None:
        return ended(lambda: enqueue(options))
    if options.prune_files is not None:
        return ended(lambda: prune_files(options))
    return ended(lambda: show(options))


def parser() -> argparse.ArgumentParser:
    """The command's flags; without any it lists the studies."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.studies",
        usage="%(prog)s [flags, which --help lists]",
        description="List a store's studies; delete one, enqueue in one, or let go of files that one no longer needs.",
        epilog="NAME is a study's name, or the .py file that declares it. Exit codes: 0 done; 1 else; 2 something for "
        "you to mend",
    )
    add_places(found)
    add = found.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="list them as JSON")
    add("--delete", metavar="NAME", help="delete a study: its trials, their files, its runs in MLflow")
    add("--enqueue", nargs=2, metavar=("NAME", "FILE"), help="a JSON file: configurations that are to be tried next")
    add("--prune-files", metavar="NAME", help="let go of checkpoints of ended trials, and of weights not of the best")
    found.add_argument("--yes", action="store_true", help="do not ask whether to delete")
    return found


def show(options: Namespace) -> int:
    """List the studies of a store."""
    from hpo.notebook import entries
    from hpo.storage import existing_store

    found = list(entries(existing_store(options.storage), Path(options.workdir)))
    if options.json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in found], indent=2) + "\n")
        return 0
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for column in ("study", "state", "trials", "best", "trial", "epochs", "device time", "on disk"):
        table.add_column(column, justify="left" if column in {"study", "state", "trials"} else "right", overflow="fold")
    for e in found:
        best = "" if e.best_value is None else f"{e.metric} {e.best_value:.4f}"
        number = "" if e.best_trial is None else str(e.best_trial)
        counts = ", ".join(f"{n} {state.lower()}" for state, n in e.trials.items()) or "none"
        spent = duration(e.device_seconds) if e.device_seconds else ""
        table.add_row(e.name, e.state, counts, best, number, str(e.epochs), spent, bytes_in_words(e.bytes))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: nothing is cut there
    console.print(table if found else "no study yet")
    return 0


def delete(options: Namespace) -> int:
    """Delete a study, everywhere. Its rows in the store go last: until then the same command finishes it.

    Raises:
        UserError: no such study, a worker is at it, or nobody said yes.
        HpoError: MLflow is not reached.
    """
    from hpo.notebook import STUDY_ID, leases_of, own_folder
    from hpo.storage import existing_store, load_study, study_names

    workdir = Path(options.workdir)
    store = existing_store(options.storage)
    study = load_study(store, study_name(options.delete))
    name, study_id = study.study_name, study.user_attrs.get(STUDY_ID)
    leases = leases_of(store, workdir)
    _refuse_at_work(leases, study, patient=True)
    n_trials, folder = len(study.get_trials(deepcopy=False)), own_folder(study, workdir)
    size = f", {bytes_in_words(size_of(folder))} in {folder}" if folder is not None else ""
    if not options.yes and not _agreed(f"delete study {name!r}: {n_trials} trials{size}, and its runs in MLflow?"):
        sys.stdout.write("nothing was deleted\n")
        return 0
    with _alone(study):
        _refuse_at_work(leases_of(store, workdir), study)  # one may have begun while the question stood
        if study_id is not None:
            _delete_runs(_tracked_at(options, study_id), name, study_id)
            _delete_files(workdir, folder, study_id)
    _delete_rows(store, study, leases)
    sys.stdout.write(f"study {name} is deleted: {n_trials} trials{size}\n")
    beside = sibling_name(name)
    if beside in study_names(store) and load_study(store, beside).user_attrs.get(CONFIRMS, "") == study_id:
        sys.stdout.write(f"what confirmed it, study {beside}, stays: --delete {beside}\n")
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("--delete asks on a terminal, and here is none; give --yes")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def _alone(study: "Study") -> Iterator[None]:
    """Let no command deliver for a study meanwhile.

    Raises:
        UserError: one does: it may be between two trials.
    """
    from filelock import FileLock, Timeout

    from hpo.notebook import STUDY_ID

    if not Path(OUTBOX).is_dir():
        yield
        return
    lock = FileLock(Path(OUTBOX) / f"{study.user_attrs.get(STUDY_ID)}.delivery.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"study {study.study_name!r} is at work: a hpo.run holds {lock.lock_file}; end it first"
        ) from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _refuse_at_work(leases: "Leases | None", study: "Study", *, patient: bool = False) -> None:
    """Refuse to touch a study at which somebody works.

    Args:
        leases: beside its store.
        study: that is meant.
        patient: whether to look for as long as it takes to see that another machine's worker is dead.

    Raises:
        UserError: somebody does.
    """
    from hpo.leases import GRACE_SECONDS
    from hpo.notebook import live_in

    trials = study.get_trials(deepcopy=False)
    live = live_in(leases, trials)
    if not live or leases is None:
        return
    its = {t._trial_id for t in trials}  # noqa: SLF001
    at_first = {trial_id: stamp for trial_id, stamp in leases.only_counted().items() if trial_id in its}
    words = f"trial {', '.join(map(str, live))}"
    if patient and len(live) == len(at_first):
        sys.stderr.write(f"{words}: its worker can't be seen from here; after {GRACE_SECONDS:.0f} s it is known dead\n")
        until = time.monotonic() + GRACE_SECONDS + 2 * _LOOK_SECONDS
        while time.monotonic() < until and at_first.items() <= leases.only_counted().items():
            if not live_in(leases, study.get_trials(deepcopy=False)):
                leases.abandoned()
                return
            time.sleep(_LOOK_SECONDS)
    raise UserError(f"study {study.study_name!r} is at work: a worker is at {words}; end it first")


def _tracked_at(options: Namespace, study_id: str) -> str:
    """Where a study's runs are: as the command or the environment says, else where they were delivered to."""
    from hpo.outbox import PARENT, open_outbox

    known = (Path(OUTBOX) / f"{study_id}.db").is_file() and open_outbox(Path(OUTBOX), study_id).known_runs().get(PARENT)
    return tracking_uri(options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or known or None)


def _delete_runs(uri: str, name: str, study_id: str) -> None:
    from hpo.urls import is_missing

    if is_missing(uri):
        return
    from hpo.experiments import delete_runs
    from hpo.tracking_store import open_uri

    n_deleted, n_kept = delete_runs(open_uri(uri), name, study_id)
    if n_kept:
        sys.stdout.write(f"{n_kept} MLflow run{'s'[: n_kept != 1]} stay: registered models are made of them\n")
    if n_deleted and not n_kept and uri.startswith("sqlite:"):
        told = f"mlflow gc --tracking-uri {shlex.quote(uri)} --backend-store-uri {shlex.quote(uri)}"
        sys.stdout.write(f"MLflow keeps the files of {n_deleted} deleted runs until `{told}`\n")


def _delete_files(workdir: Path, folder: Path | None, study_id: str) -> None:
    # Renamed first: half a folder would not be known as this study's.
    doomed = workdir / f".deleted-{study_id}"
    shutil.rmtree(doomed, ignore_errors=True)
    if folder is not None:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    for end in (".db", ".db-journal", ".db.lock"):
        (Path(OUTBOX) / f"{study_id}{end}").unlink(missing_ok=True)


def _delete_rows(store: "Store", study: "Study", leases: "Leases | None") -> None:
    import optuna

    with store.lock():
        _refuse_at_work(leases, study)  # one may have begun meanwhile
        if leases is not None:
            for trial in study.get_trials(deepcopy=False):
                leases.drop(trial._trial_id)  # noqa: SLF001  ids are given anew: the next trial's must have no past
        optuna.delete_study(study_name=study.study_name, storage=store.storage)


def _declared(store: "Store", given: str) -> "tuple[StudySpec, Study]":
    """A study as its file declares it, and as the store has it.

    Raises:
        UserError: it is not in the store, or its declaration is not found.
    """
    from hpo.loading import known_studies, load_spec
    from hpo.storage import load_study

    study = load_study(store, study_name(given))
    if not given.endswith(".py") and given not in known_studies():
        raise UserError(f"study {given!r} is in the store, but studies/ does not declare it: give its .py file's path")
    return load_spec(given), study


def enqueue(options: Namespace) -> int:
    """Put configurations into a study, to be tried before anything that its sampler proposes.

    Raises:
        UserError: no such study, or a configuration that is not in its space.
    """
    from hpo.storage import existing_store

    given, file = options.enqueue
    store = existing_store(options.storage)
    spec, study = _declared(store, given)
    configurations = read_configurations(Path(file))
    check_configurations(spec, study, configurations, file)
    with store.lock():
        there = _waiting(study.get_trials(deepcopy=False)).values()
        for params in configurations:
            if params not in there:  # a kill may have come amid them, before the same command was given again
                study.enqueue_trial(params)
        trials = study.get_trials(deepcopy=False)
    its_own = [number for number, fixed in _waiting(trials).items() if fixed in configurations]
    numbers, n = ", ".join(map(str, its_own)), len(its_own)
    sys.stdout.write(
        f"enqueued as trial{'s'[: n != 1]} {numbers} of study {spec.name}; {_when(spec, study, trials, options)}\n"
    )
    return 0


def _waiting(trials: Sequence["FrozenTrial"]) -> dict[int, Any]:
    """What is enqueued and was not begun, by trial."""
    return {t.number: t.system_attrs.get("fixed_params") for t in trials if t.state.name == "WAITING"}


def _when(spec: "StudySpec", study: "Study", trials: Sequence["FrozenTrial"], options: Namespace) -> str:
    """When what is enqueued will run, in words: a budget that is used up must grow first."""
    from hpo.schedulers.protocol import History, seconds_left

    def run(*flags: str) -> str:
        return command("hpo.run", options.enqueue[0], options, *flags)

    budget = study.user_attrs.get("hpo.n_trials", spec.n_trials)
    history = History(spec, budget, trials)
    if seconds_left(spec, trials) < 0.5:
        return f"its {spec.timeout_seconds:g} seconds are used up: raise timeout_seconds in its file, then {run()}"
    if history.epochs_left() == 0:
        return f"its {spec.n_epochs} epochs are used up: raise n_epochs in its file, then {run()}"
    wanted = history.n_started() + sum(t.state.name == "WAITING" for t in trials)
    if budget is not None and wanted > budget:
        return f"its budget of {budget} trials has no room for all that wait: {run('--trials', str(wanted))}"
    return f"to be run with the next {run()}"


def prune_files(options: Namespace) -> int:
    """Let go of what a study no longer needs on disk: checkpoints of ended trials, weights not of the best ones.

    Of the study that confirms it the winner's weights stay; all, before there is a winner, and where more than it was
    chosen among is trained.

    Raises:
        UserError: no such study.
    """
    from hpo.confirmation import read
    from hpo.notebook import STUDY_ID, own_folder
    from hpo.storage import existing_store, load_study, study_names
    from hpo.tracked import ranking

    store, workdir = existing_store(options.storage), Path(options.workdir)
    spec, study = _declared(store, options.prune_files)
    folder = own_folder(study, workdir)
    if folder is None:
        raise UserError(f"study {spec.name!r} has no folder in {options.workdir}; is --workdir another one?")
    with store.lock():  # no trial ends meanwhile
        trials = study.get_trials(deepcopy=False)
        best = {t.number for t in ranking(spec, trials)[: spec.keep_weights]}
        _prune(study, folder, best, reuses=spec.reuse_epochs)
        if (beside := sibling_name(spec.name)) in study_names(store):
            confirming = load_study(store, beside)
            its_folder = own_folder(confirming, workdir)
            said = None if its_folder is None else read(its_folder, str(study.user_attrs.get(STUDY_ID)))
            if its_folder is not None and said is not None and _is_over(said, confirming):
                _prune(confirming, its_folder, set(said.best.trials), reuses=False)
    return 0


def _is_over(said: "Confirmation", confirming: "Study") -> bool:
    """Whether no more was trained than the winner was chosen among: a larger confirmation may have another."""
    known = {number for one in said.configurations for number in one.trials}
    others = [t for t in confirming.get_trials(deepcopy=False) if t.number not in known]
    return all(t.state.name in {"FAIL", "PRUNED"} for t in others)


def _prune(study: "Study", folder: Path, best: Collection[int], *, reuses: bool) -> None:
    """Let go of the checkpoints of ended trials, unless others go on from them, and of weights not of the best."""
    from hpo.notebook import STUDY_ID
    from hpo.outbox import open_outbox

    outbox = Path(OUTBOX) / f"{study.user_attrs.get(STUDY_ID)}.db"
    ended_ones = [t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    parts = [] if reuses else [folder / str(number) / "checkpoints" for number in ended_ones]
    weights = [folder / str(number) / "weights" for number in ended_ones if number not in best]
    freed = freed_with([*parts, *weights])
    for part in [*parts, *weights]:
        if part.name == "weights" and part.is_dir() and outbox.is_file():
            # In MLflow they go with the next delivery.
            open_outbox(Path(OUTBOX), outbox.stem).put(part.parent.name, "artifact_gone", {"folder": "weights"})
        shutil.rmtree(part, ignore_errors=True)
    kept = f", the weights of the best {len(best)} stay" if best else ""
    sys.stdout.write(f"{freed} bytes ({bytes_in_words(freed)}) freed in {folder}{kept}\n")


if __name__ == "__main__":
    sys.exit(main())
