"""`python -m hpo.run --study fer`: start a study, or go on with it, whatever ended it last time.

Exit codes: 0 done (also when the budget or the timeout is reached), 1 else (also three failures in a row), 2 something
for you to mend, 74 disk full, 130 and 143 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from hpo.options import add_places, add_trainer, add_workers, ended, leave, seconds, whole
from hpo.spec import MAX_TRIALS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    return ended(lambda: _run(options, given), options.verbose)


def _run(options: argparse.Namespace, given: Sequence[str]) -> int:
    from hpo.loading import load_spec

    spec = load_spec(options.study)
    if options.cluster is not None:
        from hpo.cluster import placed_arguments, run_on_ray

        return run_on_ray(options, placed_arguments(given))
    from hpo.conduct import run_study  # optuna: only a study that can be run needs it

    if not options.confirm:
        return run_study(spec, options)
    from hpo.confirm import confirm_at_end
    from hpo.plan import less_kept

    began = time.monotonic()
    return run_study(less_kept(spec), options) or confirm_at_end(spec, options, time.monotonic() - began)


def parser() -> argparse.ArgumentParser:
    """The command's flags. They say where and how much; what is searched stands in the study's module."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.run",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        allow_abbrev=False,
        description="Start a study, or go on with it, whatever ended it last time.",
        epilog="exit codes: 0 done, budget or timeout reached; 1 else; 2 something for you to mend; 74 disk full; "
        "130, 143 interrupted",
    )
    add = found.add_argument
    add(
        "--study",
        required=True,
        help="a study in studies/ (demo, fer, fer_augmented, fer_small, table2), or a .py file of your own",
    )
    add(
        "--trials",
        type=whole(MAX_TRIALS),
        metavar="N",
        help="set the budget anew: trials started that do not fail, in all",
    )
    add("--timeout", type=seconds, metavar="S", help="stop after S seconds; the same command goes on")
    add_places(found)
    add_workers(found)
    add("--cluster", metavar="C", help="ray or ray:HOST:PORT: work on every GPU of a Ray cluster (fer-hpo[ray])")
    add(
        "--confirm",
        action="store_true",
        help="keep 15 %% of the budget, and at the end train the best anew on fresh seeds with it (python -m "
        "hpo.confirm): at least two of them and the baseline, on two seeds each, which may cost more",
    )
    add_trainer(found)
    return found


if __name__ == "__main__":
    leave(main())
