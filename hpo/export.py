"""`python -m hpo.export --study fer --onnx out.onnx`: a study's best network as a file, or as its champion.

The best is the confirmed winner; before there is one, the best trial of the search, marked as unconfirmed.
"""

import argparse
import logging
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import HpoError, UserError
from hpo.loading import load_spec
from hpo.names import OUTBOX, sibling_name
from hpo.options import add_places, add_trainer, command, ended, tracking_uri
from hpo.prepared import prepared_for
from hpo.spec import StudySpec, Trainer

if TYPE_CHECKING:
    from optuna import Study

    from hpo.outbox import Outbox


log = logging.getLogger("hpo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    return ended(lambda: export(load_spec(options.study), options), options.verbose)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.export",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        description="Write the best network of a study: the confirmed winner's, or else the best trial's, unconfirmed.",
    )
    add = found.add_argument
    add("--study", required=True, help="a study that has trials: its name, or its .py file")
    add("--onnx", type=Path, metavar="FILE", help="an ONNX file, checked against PyTorch's outputs")
    add("--file", type=Path, metavar="FILE", help="a .safetensors file, as model.recognize takes it")
    add("--register", action="store_true", help="make it the champion: an MLflow model of the study's name")
    add("--force", action="store_true", help="let it replace a better champion")
    add_places(found)
    add_trainer(found)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The trial whose network is the best of a study.

    Attributes:
        study: that it belongs to: the study, or the one that confirms it.
        number: of the trial.
        params: that it was trained with.
        value: the confirmed mean, or what the search saw.
        confirmed: whether it was confirmed.
        configuration: that it was trained with: the study's id and the number of the search's trial.
        surpassed: configurations that were confirmed beside it.
        n_seeds: on how many seeds each.
        figures: what its test split gave.
    """

    study: str
    number: int
    params: Mapping[str, Any]
    value: float
    confirmed: bool
    configuration: str
    surpassed: Sequence[str] = ()
    n_seeds: int = 0
    figures: Mapping[str, float]


def export(spec: StudySpec, options: Namespace) -> int:
    """Write what is asked for; gives the exit code.

    Raises:
        UserError: nothing is asked for, no such study, no trial with a value or with weights, no extra.
    """
    files = [file for file in (options.onnx, options.file) if file is not None]
    if not files and not options.register:
        raise UserError("nothing to do: give --onnx FILE, --file FILE or --register")
    for file, suffix in ((options.onnx, ".onnx"), (options.file, ".safetensors")):
        if file is not None and file.suffix != suffix:
            raise UserError(f"{file}: need a name that ends in {suffix}")
        if file is not None and not file.absolute().parent.is_dir():
            raise UserError(f"{file}: the folder {file.absolute().parent} is not there")
    from hpo.storage import existing_store, load_study

    best = best_of(spec, options)
    store = existing_store(options.storage)
    searched, its_study = load_study(store, spec.name), load_study(store, best.study)
    trainer = prepared_for(spec, searched, device=options.device, data=options.data)
    folder = with_weights(options, its_study, [best.number]) / str(best.number)
    champion = folder / "champion.safetensors"
    state = "the mean of its seeds, confirmed" if best.confirmed else "not confirmed"
    what = f"trial {best.number} of {best.study}, {spec.metric} {best.value:.4f}, {state}"
    for file in [*files, *([champion] if options.register else [])]:
        if not exported(trainer, folder, file):
            raise UserError(f"the trainer of study {spec.name!r} exports no network")
        if what:  # not before there is something to be said of it
            sys.stdout.write(f"{what}\n")
            what = ""
        if file is not champion:
            sys.stdout.write(f"{file}: written\n")
    if options.register:
        sys.stdout.write(f"{registered(spec, options, best, trainer, champion)}\n")
    return 0


def best_of(spec: StudySpec, options: Namespace) -> Best:
    """The confirmed winner's best network; before there is one, the best trial of the search.

    Args:
        spec: of the study.
        options: the study as it was given, and where things are.

    Raises:
        UserError: there is no such store or study, or none of its trials has a value.
    """
    from hpo.confirmation import read
    from hpo.schedulers.protocol import params_of
    from hpo.storage import existing_store, load_study
    from hpo.tracked import ranking

    study = load_study(existing_store(options.storage), spec.name)
    trials = study.get_trials(deepcopy=False)
    beside = sibling_name(spec.name)
    study_id = study.user_attrs.get("hpo.study_id", "")
    if (said := read(Path(options.workdir) / beside, study_id)) is not None:
        winner = said.best
        return Best(
            study=beside,
            number=said.champion,
            params=winner.params,
            value=winner.estimate.mean,
            confirmed=True,
            configuration=f"{study_id} {winner.trial}",
            surpassed=[f"{study_id} {other.trial}" for other in said.configurations[1:]],
            n_seeds=said.n_seeds,
            figures={} if said.test is None else {f"test_{said.test.metric}": said.test.champion},
        )
    ranked = ranking(spec, trials)
    if not ranked:
        raise UserError(
            f"study {spec.name!r} has no trial with a value yet; {command('hpo.run', options.study, options)}"
        )
    best = ranked[0]
    return Best(
        study=spec.name,
        number=best.number,
        params=params_of(best),
        value=best.value or 0.0,
        confirmed=False,
        configuration=f"{study_id} {best.number}",
        figures={},
    )


def with_weights(options: Namespace, study: "Study", numbers: Sequence[int]) -> Path:
    """The folder of a study's trials; weights that another machine has trained are fetched from MLflow.

    What can't be had is said where it is needed.

    Args:
        options: where things are.
        study: the trials'.
        numbers: of those whose weights are wanted.

    Raises:
        UserError: the study was not made by the service.
    """
    from hpo.notebook import own_folder, study_id_of
    from hpo.resume import take_folder

    study_id, workdir = study_id_of(study), Path(options.workdir)
    own = own_folder(study, workdir)
    missing = [n for n in numbers if own is None or not (own / str(n) / "weights").exists()]
    if missing:
        try:
            for number, fetched in _fetched(options, study, study_id, missing):
                if own is None:
                    own = workdir / study.study_name
                    take_folder(own, study_id, workdir / ".owners")
                here = own / str(number)
                here.mkdir(exist_ok=True)
                if not (here / "artifacts").exists():
                    (fetched / "artifacts").rename(here / "artifacts")
                (fetched / "weights").rename(here / "weights")
        except HpoError as error:
            sys.stderr.write(f"weights that other machines have trained can't be fetched: {error}\n")
    # Never another study's of that name: where there is none, one that is not there.
    return own or workdir / f"{study.study_name}.before-{study_id[:8]}"


def _fetched(options: Namespace, study: "Study", study_id: str, numbers: Sequence[int]) -> Iterator[tuple[int, Path]]:
    """What MLflow has of some trials' best networks, each in a folder that is to be emptied."""
    from hpo.experiments import fetch_network
    from hpo.tracking_store import open_uri

    workdir = Path(options.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    uri = open_uri(tracking_uri(options.tracking_uri), make=False)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=workdir) as place:
        for number in numbers:
            fetched = fetch_network(uri, study.study_name, study_id, number, Path(place) / str(number))
            if fetched is not None:
                yield number, fetched


def exported(trainer: Trainer, folder: Path, file: Path) -> bool:
    """Let a trainer write a trial's best network; false where it can't write any.

    Args:
        trainer: of the study.
        folder: of the trial.
        file: to be written; its suffix says what kind.

    Raises:
        UserError: the trial has no weights, an extra is missing, or the file would not be right.
        OSError: there is no room, or the file can't be written.
        HpoError: the trainer raises anything else.
    """
    write = getattr(trainer, "export", None)
    if write is None:
        return False
    try:
        write(folder, file)
    except ModuleNotFoundError as error:
        raise UserError(f"{file}: needs {error.name}; pip install 'fer-hpo[{file.suffix[1:]}]'") from None
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or folder}: the trial's weights are not there any more") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError:  # a full disk, a folder that can't be written
        raise
    except Exception as error:  # the user's code, or a file that is damaged
        log.debug("export raised", exc_info=True)
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise HpoError(f"{file}: can't be written from {folder} ({words})") from None
    return True


def registered(spec: StudySpec, options: Namespace, best: Best, trainer: Trainer, file: Path) -> str:
    """Make a network the study's champion, unless a better one is; gives what was done, in a sentence.

    Args:
        spec: of the study.
        options: where things are, and `force`.
        best: whose network it is.
        trainer: describes the data.
        file: the network.

    Raises:
        UserError: MLflow is not reached.
    """
    from hpo.champion import Contender, register
    from hpo.resume import description_of

    uri = tracking_uri(options.tracking_uri)
    problem, outbox = delivered(options, best.study)
    run_id = outbox.run_id(str(best.number))
    if run_id is None or problem is not None:
        why = problem or "the trial has no run"
        return f"MLflow at {uri} is not reached ({why}): the same command delivers, and makes the champion"
    return register(
        Contender(
            study=spec.name,
            run_id=run_id,
            trial=f"{best.study} #{best.number}",
            params=best.params,
            metric=spec.metric,
            direction=spec.direction,
            value=best.value,
            confirmed=best.confirmed,
            configuration=best.configuration,
            surpassed=best.surpassed,
            n_seeds=best.n_seeds,
            description=description_of(trainer),
            figures=best.figures,
            file=file,
        ),
        uri,
        force=options.force,
    )


def delivered(options: Namespace, study: str) -> "tuple[str | None, Outbox]":
    """Deliver what waits of a study; gives why not all of it was, or None, and its outbox.

    Raises:
        UserError: no such store, no such study, or the tracking URI can't be one.
    """
    from hpo.delivery import deliver_all
    from hpo.notebook import study_id_of
    from hpo.outbox import open_outbox
    from hpo.storage import existing_store, load_study

    study_id = study_id_of(load_study(existing_store(options.storage), study))
    outbox = open_outbox(Path(OUTBOX), study_id)
    return deliver_all(tracking_uri(options.tracking_uri), Path(OUTBOX), outbox, study, study_id), outbox


if __name__ == "__main__":
    sys.exit(main())
