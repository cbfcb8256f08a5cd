"""What goes on in a thread of its own for as long as something else lasts."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def beside(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Let `work` go on beside what is done here; at the end of that its event is set, and its end is waited for.

    Args:
        work: ends when its event is set.
        name: of its thread, a daemon.
    """
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def yield_to_training() -> None:
    """Let this thread have what the workers leave of the processor: on few cores training would wait for it."""
    if sys.platform == "linux":  # where priorities are a thread's own
        with suppress(OSError):
            now = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(10, now))
