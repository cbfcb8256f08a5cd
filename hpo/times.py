"""What a study's time goes to: the device should train."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from hpo.words import duration

TIMES = "hpo.times"
"""The user attribute that keeps a trial's seconds by kind."""
KINDS = ("training", "validation", "checkpoint", "service", "waiting")
"""`checkpoint` is all that a trainer writes, `service` what this service does meanwhile, `waiting` is when a worker
has no trial. They are kept when a trial ends or rests: of a worker that is killed, not."""


@dataclass(slots=True)
class Stopwatch:
    """Of one worker: every second since it was made goes to one kind."""

    clock: Callable[[], float] = time.monotonic
    _seconds: dict[str, float] = field(default_factory=dict)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._at = self.clock()

    def lap(self, kind: str) -> None:
        """Give what has passed since the last lap to a kind."""
        now = self.clock()
        self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._at
        self._at = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Give some of one kind's seconds to another."""
        moved = min(seconds, self._seconds.get(source, 0.0))
        self._seconds[source] = self._seconds.get(source, 0.0) - moved
        self._seconds[target] = self._seconds.get(target, 0.0) + moved

    def take(self) -> dict[str, float]:
        """What was counted since the last time."""
        taken, self._seconds = self._seconds, {}
        return taken


def added(before: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """The sum by kind, in milliseconds' precision."""
    return {kind: round(before.get(kind, 0.0) + more.get(kind, 0.0), 3) for kind in KINDS}


def total(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Of all trials."""
    kept = [known for trial in trials if (known := trial.user_attrs.get(TIMES))]
    return {kind: round(math.fsum(seconds.get(kind, 0.0) for seconds in kept), 3) for kind in KINDS}


def words(seconds: Mapping[str, float]) -> str | None:
    """Where the time went, in a line; None where none was counted."""
    whole = sum(seconds.values())
    if whole <= 0:
        return None
    shares = ", ".join(f"{kind} {100 * seconds.get(kind, 0.0) / whole:.1f} %" for kind in KINDS)
    return f"time of the workers, {duration(whole)}: {shares}"
