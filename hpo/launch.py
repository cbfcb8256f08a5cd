"""Worker processes on this machine: starts them, listens to them, starts those again that die, ends all cleanly."""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from hpo.worker import STOPPED, TERMINALS, Assignment

GRACE_SECONDS = 7.5
"""How long workers have to end cleanly; one batch may take longer, and the last checkpoint stands."""
MAX_DEATHS_IN_A_ROW = 9
"""Deaths of one worker with no epoch between before the whole is given up: three trials have failed of it by then. Each
of the others may have died twice meanwhile with a trial that did not fail."""

Event = Mapping[str, Any]


@dataclass(slots=True)
class Worker:
    """A started worker process."""

    process: subprocess.Popen[bytes]
    assignment: Assignment
    events: IO[bytes]
    buffer: bytes = b""
    prepared: bool = False
    told: bool = False
    """Whether it was told to go, or to stop."""
    done: bool = False
    said: str | None = None
    """The last error it told."""


@dataclass(slots=True)
class Launcher:
    """Runs workers until all have ended.

    Args:
        assignment: what each of them is given; the first speaks for all.
        n_workers: how many.
        environment: what a worker's environment has besides, by its number.
        on_event: told every event, with the worker's number.
        on_death: told the owner's name of a worker that died, how, and whether it was asked to end; false gives up.
        go: asked from when the first worker is prepared until it says that all is there that workers need.
    """

    assignment: Assignment
    n_workers: int
    environment: Callable[[int], Mapping[str, str]]
    on_event: Callable[[int, Event], None]
    on_death: Callable[[str, str, bool], bool]
    go: Callable[[], bool]
    workers: dict[int, Worker] = field(default_factory=dict)
    exit_code: int = 0
    stop_signal: int | None = None
    _asked_at: float | None = None
    _gone: bool = False
    _deaths_in_a_row: int = 0

    def run(self, deadline: float | None, tick: Callable[[], None]) -> int:
        """Start the workers and wait for their end.

        Args:
            deadline: on the monotonic clock: when to stop them; None for never.
            tick: called a few times a second.

        Returns:
            The exit code: 0, or the first worker's that is not.
        """
        selector = selectors.DefaultSelector()
        self._start(0, selector)
        try:
            while self.workers:
                for key, _ in selector.select(timeout=0.2):
                    self._read(key.data, selector)
                self._let_go(selector)
                tick()
                self._enforce(deadline)
        finally:
            self.kill()
            selector.close()
        return self.exit_code

    def ask_to_stop(self, signal_number: int | None = None) -> None:
        """Ask the workers to end; asked by a signal a second time, kill them."""
        if self._asked_at is not None:
            if signal_number is not None:
                self.stop_signal = self.stop_signal or signal_number
                self.kill()
            return
        self.stop_signal = signal_number
        self._asked_at = time.monotonic()
        for worker in self.workers.values():
            worker.process.terminate()

    def kill(self) -> None:
        """End every worker at once."""
        for worker in self.workers.values():
            worker.process.kill()

    @property
    def stopping(self) -> bool:
        """Whether the workers were asked to end."""
        return self._asked_at is not None

    @property
    def stopping_for(self) -> float:
        """Seconds since the workers were asked to end; 0 where they were not."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    def _start(self, number: int, selector: selectors.BaseSelector) -> None:
        assignment = replace(self.assignment, first=number == 0 and not self._gone, owner=uuid.uuid4().hex)
        # A terminal's Ctrl-C reaches it, too: it waits there until the worker has said that it ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINALS)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "hpo.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **self.environment(number)},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process.stdin is None or process.stdout is None:
            raise AssertionError("a worker has pipes")
        os.set_blocking(process.stdout.fileno(), False)
        worker = Worker(process, assignment, process.stdout)
        self.workers[number] = worker
        selector.register(process.stdout, selectors.EVENT_READ, number)
        self._write(worker, assignment.to_json())
        if self.stopping:  # the signal came while it was started
            process.terminate()

    def _write(self, worker: Worker, line: str) -> None:
        try:
            if worker.process.stdin is not None:
                worker.process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            pass  # it has died; its output ends too, and that is where it is seen

    def _read(self, number: int, selector: selectors.BaseSelector) -> None:
        worker = self.workers[number]
        while block := worker.events.read(1 << 16):
            worker.buffer += block
        *lines, worker.buffer = worker.buffer.split(b"\n")
        for event in _parsed(lines):
            self._handle(number, worker, event)
        if block == b"":  # its output has ended, and so has it, or will in a moment
            selector.unregister(worker.events)
            self._reap(number, worker, selector)

    def _handle(self, number: int, worker: Worker, event: Event) -> None:
        if event["event"] == "prepared":
            worker.prepared = True
        elif event["event"] == "lanes":  # whoever takes its place need not find out again
            self.assignment = replace(self.assignment, lanes=event["n"])
        elif event["event"] == "opened":  # the study keeps its budget from now on; another command may change it
            self.assignment = replace(self.assignment, n_trials=None)
        elif event["event"] == "done":
            worker.done = True
        elif event["event"] == "error":
            worker.said = str(event["text"])
        elif event["event"] == "ended" or (event["event"] == "epoch" and event["new"]):
            self._deaths_in_a_row = 0
        self.on_event(number, event)

    def _let_go(self, selector: selectors.BaseSelector) -> None:
        """Send workers that are prepared to work, once what all need is there; the first brings the others."""
        waiting = [worker for worker in self.workers.values() if worker.prepared and not worker.told]
        if not waiting or not (self.stopping or self._gone or self.go()):
            return
        for worker in waiting:
            worker.told = True
            self._write(worker, "stop" if self.stopping else "go")
        if not self._gone and not self.stopping:
            self._gone = True
            for other in range(1, self.n_workers):
                self._start(other, selector)

    def _reap(self, number: int, worker: Worker, selector: selectors.BaseSelector) -> None:
        code = worker.process.wait()
        del self.workers[number]
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None:
                pipe.close()
        # An exit code alone says nothing: what is trained may end the process with any.
        died = not (worker.done if code in {0, STOPPED} else code in {1, 2, 74} and worker.said)
        if died:
            # Which trial it died of is only sure where it had one.
            self.assignment = replace(self.assignment, lanes=1)
            words = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            go_on = self.on_death(worker.assignment.owner, words, self.stopping)
            # One that can't even start will not by being started nine times.
            most = MAX_DEATHS_IN_A_ROW + 2 * (self.n_workers - 1)
            self._deaths_in_a_row += 1 if worker.prepared else math.ceil(most / 3)
            if not self.stopping and go_on and self._deaths_in_a_row >= most:
                go_on = False
                self.on_event(
                    number, {"event": "error", "text": f"workers died, with no epoch between; the last: {words}"}
                )
            if not self.stopping and not go_on:
                self.exit_code = self.exit_code or 1
                self.ask_to_stop()
        elif code in {1, 2, 74}:
            self.on_death(worker.assignment.owner, "error", True)  # its trial is free at once; it counts as no death
            self.exit_code = self.exit_code or code
            self.ask_to_stop()
        if not self.stopping and (died or code != 0):  # it died, or somebody else ended it: the study goes on
            self._start(number, selector)

    def _enforce(self, deadline: float | None) -> None:
        now = time.monotonic()
        if deadline is not None and now >= deadline and not self.stopping:
            self.ask_to_stop()
        if self._asked_at is not None and now - self._asked_at > GRACE_SECONDS:
            self.kill()


def _parsed(lines: list[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a kill
        if isinstance(event, dict) and "event" in event:
            yield event
