"""`python -m hpo.doctor --study fer`: whether all that a study is kept in is sound; `--repair` mends what it can.

Exit codes: 0 all is well, or mended; 1 something is wrong; 2 something for you to mend first.
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence

from hpo.options import add_places, add_trainer, ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    return ended(lambda: examine(options), options.verbose)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.doctor",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        description="Look whether all that a study is kept in is sound: store, leases, outbox, trials' files, data, "
        "MLflow, device, versions. It may be at work meanwhile.",
        epilog="exit codes: 0 all is well, or mended; 1 something is wrong; 2 something for you to mend first",
    )
    found.add_argument("--study", required=True, help="as hpo.run has it")
    add_places(found)
    add_trainer(found)
    words = "mend what can be mended without losing anything: trials and runs that nobody works on, what MLflow lacks"
    found.add_argument("--repair", action="store_true", help=words)
    return found


def examine(options: Namespace) -> int:
    """Print what is found, mend what is to be mended; gives the exit code.

    Raises:
        UserError: no such study or store.
    """
    from rich.console import Console

    from hpo.checks import checks

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: nothing is cut there
    n_wrong = n_mended = n_mendable = 0
    for finding in checks(options):
        console.print(f"{finding.area:12s} {'wrong' if finding.is_fault else 'ok':7s} {finding.text}")
        if not finding.is_fault:
            continue
        n_wrong += 1
        if finding.mend is not None and options.repair:
            console.print(f"{'':12s} {'mended':7s} {finding.mend()}")
            n_mended += 1
        elif finding.mend is not None:
            n_mendable += 1
    left = n_wrong - n_mended
    if n_mendable:
        sys.stdout.write(f"{n_mendable} of {n_wrong} can be mended: the same command with --repair\n")
    elif left:
        sys.stdout.write(f"{left} wrong\n")
    else:
        sys.stdout.write("all is well\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
