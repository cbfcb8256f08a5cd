"""Lanes: the trials that one worker runs at a time, each in a thread with all of its own but process and device.

Two small trainings in one process share a device as two processes do, without a second copy of torch and of what a
device keeps for a process: only the launches of one run while the other's wait.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

WORTH = 1.1
"""How many times as fast twice as many trials must be together: each is proposed knowing fewer others' results.

Of N trials, two at a time know one result less each: 1 of 100 is lost where a tenth of the time is won.
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
        if found and rate < WORTH * found:
            break
        n_found, found, first = n, rate, first or rate
    return n_found, found / first if first else 1.0


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
