"""Draws the pictures of trials that have ended, in the launcher: the device trains on meanwhile.

A trial that ends is marked by a file in its folder, which goes when its pictures are drawn and handed over: what a kill
has left is drawn by the next command.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from optuna.trial import FrozenTrial

from hpo.background import yield_to_training
from hpo.errors import disk_is_full
from hpo.outbox import Outbox
from hpo.tracked import put_artifact

log = logging.getLogger(__name__)

_UNDRAWN = ".undrawn"


def mark_undrawn(trial: Path) -> None:
    """Note in a trial's folder that it has pictures to be drawn."""
    trial.mkdir(parents=True, exist_ok=True)
    (trial / _UNDRAWN).touch()


class Drawing:
    """Draws one trial after another, in a thread.

    Args:
        draw: a study's; None draws nothing.
        outbox: of the study: gets what was drawn.
        folder: of the study's trials.
    """

    def __init__(self, draw: Callable[[Path], None] | None, outbox: Outbox, folder: Path) -> None:
        self._draw, self._outbox, self._folder = draw, outbox, folder
        self._asked: set[int] = set()
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        # A daemon: a `draw` that hangs must not keep the command from ending.
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        if draw is not None:
            self._thread.start()

    def add(self, number: int) -> None:
        """Draw a trial that has ended, when its turn comes."""
        if number not in self._asked:
            self._asked.add(number)
            self._waiting.put(number)

    def add_left(self, trials: Iterable[FrozenTrial]) -> None:
        """Draw those of the trials that have ended and are marked."""
        marked = {path.parent.name for path in self._folder.glob(f"*/{_UNDRAWN}")}
        for trial in trials:
            if trial.state.is_finished() and str(trial.number) in marked:
                self.add(trial.number)

    def close(self, give_up: Callable[[float], bool]) -> None:
        """Wait for what is to be drawn; what isn't when `give_up`, told the seconds waited, says so is left.

        The next command draws it.
        """
        began = time.monotonic()
        self._waiting.put(None)
        while self._thread.is_alive() and not give_up(time.monotonic() - began):
            self._thread.join(0.05)

    def _run(self) -> None:
        yield_to_training()
        while self._draw is not None and (number := self._waiting.get()) is not None:
            try:
                self._carry_out(self._draw, number)
            except Exception as error:  # the outbox, say: the mark stays, and the next command draws it
                log.warning("trial %d: its pictures can't be handed over: %s", number, error or type(error).__name__)

    def _carry_out(self, draw: Callable[[Path], None], number: int) -> None:
        trial = self._folder / str(number)
        before = _stamps(trial)
        try:
            draw(trial)
        except (Exception, SystemExit) as error:  # the user's code: no failure of the trial
            if disk_is_full(error):
                log.warning("trial %d: no room for its pictures; the next command draws them", number)
                return
            log.warning("trial %d: its pictures can't be drawn: %s: %s", number, type(error).__name__, error)
        artifacts = trial / "artifacts"
        for file, stamp in _stamps(trial).items():
            if before.get(file) != stamp:
                where = file.parent.relative_to(artifacts).as_posix()
                put_artifact(self._outbox, str(number), file, "" if where == "." else where)
        (trial / _UNDRAWN).unlink(missing_ok=True)


def _stamps(trial: Path) -> dict[Path, tuple[int, int]]:
    files = sorted(p for p in (trial / "artifacts").rglob("*") if p.is_file())
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
