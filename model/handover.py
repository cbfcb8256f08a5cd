"""Stages of a stream, each in a thread of its own, that hand on what they have done."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(
    items: Generator[A, None, None],
    work: Callable[[A], B],
    *,
    capacity: int = 1,
    may_drop: Callable[[B], bool] = lambda _: False,
) -> Generator[B, None, None]:
    """Do the work on the items in a thread of its own, a little ahead of who takes the results; in their order.

    Chained, they are a pipeline: each stage works on another item at the same time. What the thread raises is raised
    where its results are taken. Closing this stops the thread and, in it, closes `items`.

    Args:
        items: what comes before; read in the thread alone.
        work: on one of them.
        capacity: results that wait at most, at least 1; then the thread waits in turn.
        may_drop: of a result: whether it may be left out, when nobody has taken it in time, for a newer one of which
            the same holds.
    """
    hand: _HandOver[B] = _HandOver(capacity, may_drop)
    thread = threading.Thread(target=_fill, args=(items, work, hand), daemon=True)
    thread.start()
    try:
        while (result := hand.take()) is not None:
            yield result[0]
    finally:
        hand.close()
        thread.join()


def _fill(items: Generator[A, None, None], work: Callable[[A], B], hand: "_HandOver[B]") -> None:
    try:
        for item in items:
            if not hand.put(work(item)):
                break
        items.close()
    except BaseException as error:  # whatever it is belongs to who takes the results
        hand.end(error)
    else:
        hand.end()


class _HandOver(Generic[B]):
    """Between two threads: a few results, an end, an error."""

    def __init__(self, capacity: int, may_drop: Callable[[B], bool]) -> None:
        self._capacity, self._may_drop = capacity, may_drop
        self._waiting: deque[B] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, result: B) -> bool:
        """Hand on, for an older one that may be dropped, or when there is room. False when nobody takes any more."""
        with self._changed:
            if len(self._waiting) >= self._capacity and self._may_drop(result):
                stale = next((i for i, old in enumerate(self._waiting) if self._may_drop(old)), None)
                if stale is not None:
                    del self._waiting[stale]
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._capacity)
            self._waiting.append(result)
            self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None = None) -> None:
        """No more will come, and why if that is an error."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> tuple[B] | None:
        """The next result; None at the end.

        Raises:
            BaseException: what the other thread ended with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                result = self._waiting.popleft()
                self._changed.notify_all()
                return (result,)
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Nobody takes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
