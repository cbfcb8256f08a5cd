"""The command itself: when it began, how long it takes until it trains (`--verbose`), how it is given again."""

import logging
import shlex
import sys
import time

import psutil

from hpo.urls import shown

log = logging.getLogger("hpo")


def command_began() -> float:
    """When this process was started, in seconds since 1970."""
    return float(psutil.Process().create_time())


def same_command() -> str:
    """This command, as it may be shown, to be given again."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    name = main.name if main and main.name != "hpo.placed" else "hpo.run"
    return shlex.join(["python", "-m", name, *map(shown, sys.argv[1:])])


def reached(stage: str, began: float) -> None:
    """Tell that a stage is reached, and after how long since the command began."""
    log.debug("%6.2f s  %s", time.time() - began, stage)
