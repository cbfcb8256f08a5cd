"""How fast trainings are side by side: one small training leaves much of a device idle, and a second one fills it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from model.steps import Stop

MOST = 8
"""Trainings at a time that are tried at most."""
_SECONDS = 0.6
_BEGIN_SECONDS = 60.0

Training = Callable[[], int]
"""Trains some steps; gives of how many images."""


def images_per_second(makes: Sequence[Callable[[], Training]], stop: Stop) -> float:
    """What trainings do together, each in a thread of its own, from when the last one is ready.

    Args:
        makes: each makes a training, in its thread: threads, streams and graphs are made ready there.
        stop: true ends it early; what is given then means nothing.

    Raises:
        threading.BrokenBarrierError: one of them raised before all were ready, or took longer than a minute.
    """
    barrier = Barrier(len(makes))

    def rate(make: Callable[[], Training]) -> float:
        try:
            training = make()
            training()  # the first also allocates, and compiles
            barrier.wait(_BEGIN_SECONDS)
        except BaseException:
            barrier.abort()  # the others wait for it
            raise
        began, n_images = time.perf_counter(), 0
        while n_images == 0 or (time.perf_counter() - began < _SECONDS and not stop()):
            n_images += training()
        return n_images / (time.perf_counter() - began)

    with ThreadPoolExecutor(len(makes)) as threads:
        return sum(threads.map(rate, makes))
