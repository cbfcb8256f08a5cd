"""`python -m hpo.run --study fer`: start a study, or go on with it, whatever ended it last time.

Exit codes: 0 done (also when the budget or the timeout is reached), 1 else (also three failures in a row), 2 something
for you to mend, 74 disk full, 130 and 143 interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from hpo.errors import DiskFullError, HpoError, UserError, disk_is_full
from hpo.spec import MAX_TRIALS, outside

MAX_WORKERS = 256

log = logging.getLogger("hpo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    os.umask(0o077)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.DEBUG if options.verbose else logging.WARNING)
    for name in ("optuna", "mlflow", "alembic", "filelock", "matplotlib", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from hpo.loading import load_spec

        spec = load_spec(options.study)
        from hpo.conduct import run_study  # optuna and mlflow: 2 s, and only a study that can be run needs them

        if not options.confirm:
            return run_study(spec, options)
        from hpo.confirm import confirm_at_end
        from hpo.plan import less_kept

        return run_study(less_kept(spec), options) or confirm_at_end(spec, options)
    except HpoError as error:
        log.debug("%s", error, exc_info=True)
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        log.debug("%s", error, exc_info=True)
        sys.stderr.write(f"{error.filename or options.workdir}: {error.strerror or error}\n")
        return DiskFullError.exit_code if disk_is_full(error) else UserError.exit_code
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command's flags. They say where and how much; what is searched stands in the study's module."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.run",
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
    add("--trials", type=_count, metavar="N", help="set the budget anew: trials started that do not fail, in all")
    add("--timeout", type=_seconds, metavar="S", help="stop after S seconds; the same command goes on")
    add("--storage", default="sqlite:///hpo.db", metavar="URL", help="the Optuna store [sqlite:///hpo.db]")
    add("--tracking-uri", metavar="URI", help="MLflow [MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
    add("--data", metavar="PATH", help="the data set [FER2013_DIR, else ./datasets]")
    add("--device", metavar="D", help="cuda, cuda:1, mps or cpu [the best there is]")
    add("--workdir", default="trials", metavar="DIR", help="folder of the trials' files [./trials]")
    add("--workers", type=_workers, metavar="N", help="worker processes on this machine [1]")
    add(
        "--workers-per-device",
        type=_workers,
        metavar="K",
        help="trials at a time in each worker [1 beside --workers, else what is measured to be fastest]",
    )
    add(
        "--confirm",
        action="store_true",
        help="at the end train the best anew on fresh seeds, with 15 % of the budget (python -m hpo.confirm)",
    )
    add("-v", "--verbose", action="store_true", help="say more: how long each stage of the start takes, tracebacks")
    return found


def _count(text: str) -> int:
    return _whole(text, MAX_TRIALS)


def _workers(text: str) -> int:
    return _whole(text, MAX_WORKERS)


def _whole(text: str, most: int) -> int:
    value = int(text) if text.strip().lstrip("+-").isdecimal() else text
    if fault := outside(value, 1, most):
        raise argparse.ArgumentTypeError(fault)
    return int(value)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
