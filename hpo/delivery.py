"""Delivers an outbox to MLflow from a thread of its own, for as long as it takes a server to come back."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenacity
from filelock import FileLock

from hpo.background import yield_to_training
from hpo.errors import in_a_line
from hpo.outbox import Outbox

if TYPE_CHECKING:  # MLflow takes two seconds to import
    from hpo.tracking import Tracker

POLL_SECONDS = 0.3
MAX_WAIT_SECONDS = 30.0
UNREACHED_SECONDS = 3.0
"""How long, at the end, a server is waited for that gives errors or can't be reached."""
HANGING_SECONDS = 60.0
"""And one that takes its time: weights of half a gigabyte do."""


class Delivery:
    """Delivers a study's outbox from a thread of its own, until it is closed.

    Of all processes in a working folder one delivers at a time: whoever holds `lock`.
    """

    def __init__(self, tracker: "Tracker", lock: Any) -> None:
        self.tracker = tracker
        self._lock = lock
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def drain(self, give_up: Callable[[float], bool] = lambda _: False) -> int:
        """Wait until nothing waits any more; give up when nothing has been delivered for a while.

        Args:
            give_up: asked again and again, with the seconds waited so far.

        Returns:
            How many rows still wait; they stay on disk, and go with the next command.
        """
        began = moved = time.monotonic()
        least = waiting = self.tracker.outbox.n_waiting()
        while waiting and self._thread.is_alive():
            now = time.monotonic()
            patience = HANGING_SECONDS if self.tracker.problem is None else UNREACHED_SECONDS
            if now - moved > patience or give_up(now - began):
                break
            time.sleep(0.05)
            waiting = self.tracker.outbox.n_waiting()
            if waiting < least:
                moved, least = now, waiting
        return waiting

    def close(self) -> None:
        """Stop delivering; a delivery that hangs is left behind: it is a daemon thread's."""
        self._closing.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        yield_to_training()
        while not self._closing.is_set():
            try:
                with self._lock.acquire(timeout=1.0):
                    self._deliver_until_closed()
            except TimeoutError:
                continue  # another process delivers
            except Exception as error:  # the outbox itself can't be read now: it may be in a moment
                self.tracker.problem = in_a_line(error)
                self._closing.wait(MAX_WAIT_SECONDS)

    def _deliver_until_closed(self) -> None:
        until_delivered = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda problem: problem is not None),
            wait=tenacity.wait_exponential_jitter(initial=0.5, max=MAX_WAIT_SECONDS),
            sleep=tenacity.sleep_using_event(self._closing),
            stop=tenacity.stop_when_event_set(self._closing),
            retry_error_callback=lambda _: None,
        )
        while not self._closing.is_set():
            until_delivered(self._deliver)
            if not self.tracker.outbox.n_waiting():
                self._closing.wait(POLL_SECONDS)

    def _deliver(self) -> str | None:
        self.tracker.deliver()
        return self.tracker.problem


def delivery_lock(outboxes: Path, study_id: str) -> FileLock:
    """The lock of whoever delivers a study, by the folder of outboxes."""
    return FileLock(outboxes / f"{study_id}.delivery.lock", thread_local=False)


def deliver_all(uri: str, outboxes: Path, outbox: Outbox, study: str, study_id: str) -> str | None:
    """Deliver all that waits; gives why it went no further, None where all is delivered.

    Raises:
        UserError: the URI can't be one of MLflow's.
    """
    from hpo.tracking import Tracker
    from hpo.tracking_store import open_uri

    delivery = Delivery(Tracker(open_uri(uri), outbox, study, study_id), delivery_lock(outboxes, study_id))
    waiting = delivery.drain()
    delivery.close()
    return (delivery.tracker.problem or "it takes too long") if waiting else None
