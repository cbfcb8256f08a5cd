"""Lanes: the trials that one worker runs at a time, each in a thread with all of its own but process and device.

Two small trainings in one process share a device as two processes do, without a second copy of torch and of what a
device keeps for a process: only the launches of one run while the other's wait.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

WORTH_TWO, WORTH = 1.1, 1.3
"""How many times as fast two trials, and then twice as many again, must be together.

Each is proposed knowing fewer others' results: with two at a time one less, 1 of 100, where a tenth of the time is won;
with eight it is seven.
"""


def chosen(rates: Iterable[tuple[int, float]]) -> tuple[int, float]:
    """How many trials at a time are worth it.

    Args:
        rates: numbers of trials at a time, growing, each with what those train together in a second. Taken one by one,
            and no longer than they are worth it.

    Returns:
        The number, and how many times as fast they are together as one alone.
    """
    found = first = 0.0
    n_found = 1
    for n, rate in rates:
        if found and rate < worth(n) * found:
            break
        n_found, found, first = n, rate, first or rate
    return n_found, found / first if first else 1.0


def worth(n: int) -> float:
    """How many times as fast n trials at a time must be as half as many."""
    return WORTH_TWO if n == 2 else WORTH


def owner_of(worker: str, lane: int) -> str:
    """The name under which a worker's lane owns trials; the first one's is the worker's own."""
    return f"{worker}.{lane}" if lane else worker


def run_lanes(lanes: Sequence[Callable[[], str]], stop: Callable[[], None]) -> str:
    """Run them all to their end; gives why the last one ended.

    Args:
        lanes: each gives why it ended.
        stop: asks all of them to end; called where one raises.

    Raises:
        Exception: what the first one raised, when all have ended.
    """
    if len(lanes) == 1:
        return lanes[0]()
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as threads:
        running = [threads.submit(lane) for lane in lanes]
        wait(running, return_when=FIRST_EXCEPTION)
        if any(lane.done() and lane.exception() for lane in running):
            stop()
    return [lane.result() for lane in running][-1]
