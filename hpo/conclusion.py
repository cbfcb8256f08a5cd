"""What follows from a confirmation: the winner is scored on the test split, said, and its network made the champion."""

import logging
import math
import numbers
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import HpoError, UserError
from hpo.names import OUTBOX, sibling_name
from hpo.prepared import prepared_for
from hpo.spec import StudySpec, Trainer

if TYPE_CHECKING:
    from optuna import Study

    from hpo.confirmation import Confirmation, Retrained, Test

TESTS = "hpo.tests"
"""The study's attribute that keeps every look at its test split, and the study that confirmed whose networks looked."""

CLAIMS = "hpo.claims"
"""The one that keeps who was said to have won, in order, by which confirming study, and whether with a test score."""

log = logging.getLogger("hpo")


def conclude(spec: StudySpec, options: Namespace, found: "Sequence[Retrained]", top: int) -> int:
    """Look at the test split, keep what was found, say it, and let the winner be champion; gives the exit code.

    One command at a time: a second one finds what the first has looked at.
    """
    from hpo.sqlite import file_lock

    folder = Path(options.workdir) / sibling_name(spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".conclusion.lock"):
        return _concluded(spec, options, found, top, folder)


def _concluded(spec: StudySpec, options: Namespace, found: "Sequence[Retrained]", top: int, folder: Path) -> int:
    from dataclasses import replace

    from rich.console import Console

    from hpo import confirmation
    from hpo.display import rich_table
    from hpo.export import delivered, with_weights
    from hpo.notebook import study_id_of
    from hpo.outbox import open_outbox
    from hpo.report_claim import confirmed, confirmed_table
    from hpo.resume import description_of
    from hpo.storage import existing_store, load_study
    from hpo.tracked import StudyIdentity, describe_study, log_confirmation, open_parent

    store = existing_store(options.storage)
    of, beside = load_study(store, spec.name), load_study(store, sibling_name(spec.name))
    said = confirmation.confirmed(found, study=spec.name, metric=spec.metric, direction=spec.direction)
    said = replace(said, study_id=study_id_of(of), top=top)
    said = replace(said, test=_known_test(said, of, beside))
    file = confirmation.write(said, folder)  # whatever the trainer does now
    trainer = prepared_for(spec, of, device=options.device, data=options.data)
    with_weights(options, beside, said.best.trials)
    if said.test is None:
        said = replace(said, test=_test(said, of, beside, trainer, folder))
        file = confirmation.write(said, folder)
    step = _how_many(of, beside, said)
    outboxes = [open_outbox(Path(OUTBOX), study_id_of(study)) for study in (of, beside)]
    # A machine that did not search has no outbox of it yet.
    open_parent(outboxes[0], StudyIdentity(said.study_id, spec.name, description_of(trainer)), spec, str(store))
    for outbox in outboxes:
        log_confirmation(outbox, said, file, step=step)
    describe_study(outboxes[0], spec, of.get_trials(deepcopy=False), Path(options.workdir) / spec.name, "confirmed")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(rich_table(confirmed_table(said)))
    for words in confirmed(said):
        console.print(words, soft_wrap=True)
    for study in (of, beside):
        if problem := delivered(options, study.study_name)[0]:
            console.print(f"MLflow is not reached ({problem}): the same command delivers, and makes the champion")
            return 0
    for words in _champion(spec, options, trainer):
        console.print(words, soft_wrap=True)
    return 0


def seeds_claimed(of: "Study", beside: "Study") -> int:
    """On how many seeds a study was said to be confirmed, by the one that confirms it now; 0 where it was not yet."""
    return max((len(claim["trials"]) for claim in _by(beside, of.user_attrs.get(CLAIMS, []))), default=0)


def _how_many(of: "Study", beside: "Study", said: "Confirmation") -> int:
    """How many claims there were before this one; the study keeps them all, also where what confirmed it is deleted."""
    from hpo.notebook import study_id_of

    claims = of.user_attrs.get(CLAIMS, [])
    claim = {"by": study_id_of(beside), "trials": list(said.best.trials), "tested": said.test is not None}
    if claims[-1:] == [claim]:
        return len(claims) - 1
    of.set_user_attr(CLAIMS, [*claims, claim])
    return len(claims)


def _by(beside: "Study", kept: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the claims or looks that a study keeps, those by the study that confirms it now."""
    return [one for one in kept if one["by"] == beside.user_attrs.get("hpo.study_id")]


def _champion(spec: StudySpec, options: Namespace, trainer: Trainer) -> Iterator[str]:
    """Export the winner's best network, and register it."""
    from hpo.export import best_of, exported, registered

    workdir = Path(options.workdir)
    best = best_of(spec, options)
    file = workdir / best.study / "champion.safetensors"
    if not exported(trainer, workdir / best.study / str(best.number), file):
        yield "the trainer exports no network: there is no champion"
        return
    yield f"the winner's best network: {file}"
    try:
        yield registered(spec, options, best, trainer, file)
    except UserError as error:  # MLflow went away meanwhile; what was confirmed is kept
        yield f"{error}; the same command makes the champion"


def _known_test(said: "Confirmation", of: "Study", beside: "Study") -> "Test | None":
    """What the winner's networks had on the test split, where they have looked at it already."""
    from dataclasses import replace

    from hpo.confirmation import test_from

    looks = of.user_attrs.get(TESTS, [])
    known = next((look for look in _by(beside, looks) if look["trials"] == list(said.best.trials)), None)
    return None if known is None else replace(test_from(known["test"]), scorings=len(looks))


def _test(said: "Confirmation", of: "Study", beside: "Study", trainer: Trainer, folder: Path) -> "Test | None":
    """The winner's networks on the test split: looked at once, and kept with the study.

    Args:
        said: what was confirmed.
        of: the study.
        beside: the one that confirms it.
        trainer: scores them.
        folder: of that one's trials.

    Returns:
        None where the data have no such split, or the weights are not here, which is said.

    Raises:
        UserError: what the trainer gives is no score.
        HpoError: they can't be scored now.
    """
    from hpo.confirmation import Test, as_json, estimate, share_interval
    from hpo.notebook import study_id_of

    metric = said.metric.removeprefix("val_")
    try:
        scores = [trainer.evaluate(folder / str(number), "test") for number in said.best.trials]
    except FileNotFoundError as error:
        sys.stdout.write(f"{error.filename or folder}: the winner's weights are not here: no test score\n")
        return None
    except (ValueError, LookupError, NotImplementedError) as error:  # so a trainer says that there is no such split
        sys.stdout.write(f"study {said.study} has no test split ({error}): it can only validate\n")
        return None
    except OSError:
        raise
    except Exception as error:  # the user's code, or the device's: not to be taken for a study without such a split
        log.debug("evaluate raised", exc_info=True)
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise HpoError(
            f"the winner can't be scored on the test split now ({words}); the same command tries again"
        ) from None
    if strange := [score for score in scores if not isinstance(score, Mapping)]:
        raise UserError(f"evaluate of study {said.study!r} must return metrics by name, got {strange[0]!r:.80}")
    if missing := [score for score in scores if metric not in score]:
        sys.stdout.write(f"evaluate gives no {metric!r}, only {', '.join(missing[0])}: there is no test score\n")
        return None
    for score in scores:
        if not isinstance(score[metric], numbers.Real) or not math.isfinite(score[metric]):
            raise UserError(
                f"evaluate of study {said.study!r} must give {metric!r} as a number, got {score[metric]!r:.80}"
            )
    values = tuple(float(score[metric]) for score in scores)
    champion = values[said.best.trials.index(said.champion)]
    n_images = _n_images(trainer)
    is_share = metric == "accuracy" and 0.0 <= champion <= 1.0
    low, high = share_interval(champion, n_images) if n_images and is_share else (None, None)
    looks = of.user_attrs.get(TESTS, [])
    test = Test(
        metric=metric,
        values=values,
        estimate=estimate(values),
        champion=champion,
        champion_low=low,
        champion_high=high,
        n_images=n_images,
        scorings=len(looks) + 1,
    )
    look = {"by": study_id_of(beside), "trials": list(said.best.trials), "test": as_json(test)}
    of.set_user_attr(TESTS, [*looks, look])
    return test


def _n_images(trainer: Trainer) -> int | None:
    """How many images the test split has, where the trainer says so: {"dataset": {"counts": {"test": [by class]}}}."""
    from hpo.resume import description_of

    dataset = description_of(trainer).get("dataset")
    counts = dataset.get("counts") if isinstance(dataset, Mapping) else None
    of_test = counts.get("test") if isinstance(counts, Mapping) else None
    try:
        return sum(of_test) or None if isinstance(of_test, list | tuple) else None
    except TypeError:
        return None
