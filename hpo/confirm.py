"""`python -m hpo.confirm --study fer`: train the best configurations anew on fresh seeds, and say which is best.

The trainings are ordinary trials of a sibling study, `fer-confirm`: they resume, and the same command goes on. Then the
winner's test split is looked at, once, and its best network becomes the study's champion.

The intervals hold for a number of seeds that was chosen beforehand: whoever adds seeds until a difference shows gets
intervals that are too narrow. They are of the mean over seeds, on this data set's split as it is.
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.conclusion import conclude, seeds_claimed
from hpo.errors import HpoError, UserError
from hpo.loading import load_spec
from hpo.names import CONFIRMS, OVER, sibling_name
from hpo.options import (
    add_places,
    add_trainer,
    add_workers,
    bytes_in_words,
    command,
    ended,
    leave,
    seconds,
    size_of,
    whole,
)
from hpo.spec import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hpo.plan import Plan

TOP, SEEDS, MOST = 5, 5, 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)

    def body() -> int:
        options.trials, options.confirm = None, False
        return confirm(load_spec(options.study), options, options.top, options.seeds)

    return ended(body, options.verbose)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.confirm",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        description="Train a study's best configurations, and its baseline, anew on fresh seeds; say which is best, "
        "and how sure that is. The same command goes on with what was interrupted.",
        epilog="exit codes: as of hpo.run",
    )
    add = found.add_argument
    add("--study", required=True, help="a study that has trials: its name, or its .py file")
    add("--top", type=whole(MOST), default=TOP, metavar="K", help=f"how many of the best configurations [{TOP}]")
    add(
        "--seeds",
        type=whole(MOST),
        default=SEEDS,
        metavar="S",
        help=f"on how many seeds each, chosen beforehand [{SEEDS}]",
    )
    add_places(found)
    add("--timeout", type=seconds, metavar="S", help="stop after S seconds; the same command goes on")
    add_workers(found)
    add("--force", action="store_true", help="let the winner replace a better champion")
    add_trainer(found)
    return found


def confirm_at_end(spec: StudySpec, options: Namespace, searched: float) -> int:
    """What `hpo.run --confirm` does when its search is done; nothing where that was only interrupted in time.

    Args:
        spec: of the study.
        options: as `hpo.run`'s.
        searched: how many seconds of `--timeout` the search has used.
    """
    from hpo.plan import affordable, kept_budget
    from hpo.storage import existing_store, load_study, study_names

    store = existing_store(options.storage)
    study = load_study(store, spec.name) if spec.name in study_names(store) else None  # out of time before it was made
    attrs = study.user_attrs if study is not None else {}
    n_trials = attrs.get("hpo.n_trials", spec.n_trials)
    if options.timeout is not None:
        options.timeout -= searched  # it is of both together
    is_over = attrs.get(OVER, {}).get("budget") == kept_budget(spec, n_trials)
    if study is None or not is_over or (options.timeout is not None and options.timeout <= 0):
        sys.stdout.write(f"study {spec.name} is confirmed when it is done: the same command goes on\n")
        return 0
    top, seeds = affordable(spec, n_trials, study.get_trials(deepcopy=False))
    options.trials, options.confirm, options.force = None, False, False
    return confirm(spec, options, top, seeds)


def confirm(spec: StudySpec, options: Namespace, top: int, n_seeds: int) -> int:
    """Confirm a study; gives the exit code.

    Args:
        spec: of the study.
        options: as `hpo.run`'s, and `force`.
        top: how many of the best configurations.
        n_seeds: on how many seeds each.

    Raises:
        HpoError: no such study, no trial with a value, or what `run_study` raises.
    """
    from hpo.conduct import run_study
    from hpo.notebook import own_folder, study_id_of
    from hpo.plan import chosen, results, sibling
    from hpo.resume import measured_otherwise, refuse, searched_otherwise
    from hpo.storage import existing_store, load_study, study_names

    store, beside = existing_store(options.storage), sibling_name(spec.name)
    study = load_study(store, spec.name)
    trials, study_id = study.get_trials(deepcopy=False), study_id_of(study)
    refuse(spec, [*searched_otherwise(spec, study), *measured_otherwise(spec, study)])
    before: Sequence[FrozenTrial] = ()
    n_claimed = 0
    if beside in study_names(store):
        sibling_study = load_study(store, beside)
        before, confirms = sibling_study.get_trials(deepcopy=False), sibling_study.user_attrs.get(CONFIRMS)
        if before and confirms != study_id:
            is_a = (
                f"confirms another study {spec.name!r} that was here before" if confirms else "is a search of its own"
            )
            raise UserError(
                f"study {beside!r} {is_a}; let go of it with `python -m hpo.studies --delete {beside}`, or give "
                f"study {spec.name!r} another name"
            )
        n_claimed = seeds_claimed(study, sibling_study)
    say = sys.stdout.write
    if n_claimed > n_seeds:
        n_seeds = n_claimed
        say(
            f"it was confirmed on {n_seeds} seeds before, and fewer would know less: it is {n_seeds} again "
            f"(`python -m hpo.studies --delete {beside}` lets go of that)\n"
        )
    plan = chosen(spec, trials, before, top=top, n_seeds=n_seeds, study_id=study_id)
    if plan is None:
        raise UserError(
            f"study {spec.name!r} has no trial with a value yet; {command('hpo.run', options.study, options)}"
        )
    if plan.baseline is None:
        say("there is no baseline: the study enqueues nothing, or has not tried it\n")
    n = len(plan.configurations)
    say(f"confirming {n} configuration{'s'[: n != 1]} of {spec.name} on {n_seeds} seed{'s'[: n_seeds != 1]} each")
    here = own_folder(study, Path(options.workdir))
    say(f"{_cost(spec, plan, trials, plan.n_trials - len(before), here)}\n")
    if code := run_study(sibling(spec, plan), options, plan):
        return code
    found, lost = results(plan, load_study(store, beside).get_trials(deepcopy=False))
    for words in lost:
        say(f"left out: {words}\n")
    if len(found) + len(lost) < n:
        return 0  # out of time: the same command goes on
    if not found:
        raise HpoError(f"no configuration of {spec.name!r} came through on all of {n_seeds} seeds")
    return conclude(spec, options, found, top)


def _cost(spec: StudySpec, plan: "Plan", trials: "Sequence[FrozenTrial]", n: int, here: Path | None) -> str:
    """What is to come, in words: how many trainings, epochs, hours and bytes, as the search had them.

    Args:
        spec: of the study.
        plan: what is to be trained.
        trials: of the search.
        n: trainings that are to come.
        here: the folder of the search's trials.
    """
    from hpo.plan import epoch_seconds
    from hpo.schedulers.protocol import horizon
    from hpo.words import duration

    if n <= 0:
        return ""
    longest = [horizon(spec, params) for params in plan.configurations.values()]
    words = f": {n} training{'s'[: n != 1]}"
    if None not in longest:
        n_epochs = max(each or 0 for each in longest)
        words += f" of up to {n_epochs} epochs"
        if seconds := epoch_seconds(trials):
            words += f", about {duration(n * n_epochs * seconds)} of the device at the search's pace"
    weights = [size_of(here / str(number) / "weights") for number in plan.configurations] if here else []
    if any(weights):
        words += f"; all keep their weights, {bytes_in_words(n * max(weights))} together"
    return words


if __name__ == "__main__":
    leave(main())
