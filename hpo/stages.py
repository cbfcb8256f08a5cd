"""How long a command takes until it trains: `--verbose` tells it stage by stage."""

import logging
import time

import psutil

log = logging.getLogger("hpo")


def command_began() -> float:
    """When this process was started, in seconds since 1970."""
    return float(psutil.Process().create_time())


def reached(stage: str, began: float) -> None:
    """Tell that a stage is reached, and after how long since the command began."""
    log.debug("%6.2f s  %s", time.time() - began, stage)
