"""What the process that launches workers does beside: shows, delivers, draws, settles deaths, says how it ended."""

import logging
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo import times
from hpo.delivery import Delivery, delivery_lock
from hpo.display import Display, best_table
from hpo.drawing import Drawing
from hpo.errors import HpoError, StoreLockedError, disk_is_full, in_a_line
from hpo.launch import Launcher
from hpo.leases import Leases, become_owner
from hpo.names import OUTBOX
from hpo.outbox import PARENT, Outbox, open_outbox
from hpo.records import Records
from hpo.search import MAX_FAILURES_IN_A_ROW
from hpo.spec import StudySpec
from hpo.stages import same_command
from hpo.storage import STORE_ERRORS, Store, first_line, load_study
from hpo.tracked import (
    DEFAULT_URI,
    StudyIdentity,
    log_best,
    parent_status,
    put_artifact,
    ranking,
    rest_run,
)
from hpo.urls import is_sqlite
from hpo.whole import write_whole

log = logging.getLogger("hpo")
MAX_DEATHS = 3
_ORDINALS = ("", "first", "second", "third")
OPEN_SECONDS = 15.0
"""How long the launcher waits for a store that is away when it begins."""
PATIENT_SECONDS = 2.0
"""After so long it is said what is waited for."""
TIMED_OUT_SECONDS = 3.0
"""How long they are waited for at the end of a call that has used up its `--timeout`."""
SIGNALLED_SECONDS = 2.0
"""How long MLflow is waited for at the end when a signal asked to end: all must be over within ten seconds."""
LAST_SECONDS = 8.5
"""And so long after the signal at most: workers that would not end have taken some of the ten."""
AGAIN_SECONDS = 30.0
"""After so long an MLflow store that could not be opened is tried again."""
MADE_SECONDS = 5.0
"""How long its schema is waited for after the workers were asked to end: a first command's first seconds make it."""


@dataclass(slots=True)
class Conductor:
    """What this process does beside its workers."""

    spec: StudySpec
    store: Store
    tracking_uri: str
    open_tracking: Callable[[], Future[None]]
    """Begins to open MLflow's store: ends when that can be used, or with what is wrong with it."""
    workdir: Path
    display: Display
    is_safe: bool
    """Whether nothing that can be known beforehand is wrong with MLflow's store: training need not wait for it."""
    may_grow: bool
    """Whether more trials can be asked for."""
    _tracking: Future[None] = field(init=False)
    _tried: float = field(default_factory=time.monotonic)
    _records: Records | None = None
    _delivery: Delivery | None = None
    _drawing: Drawing | None = None
    _problem: str | None = None
    _known: Sequence[FrozenTrial] = ()
    _errors: list[str] = field(default_factory=list)
    _failed_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._tracking = self.open_tracking()

    def go(self) -> bool:
        """Whether what the workers need is there; raises what is wrong with it, unless it may be well by and by."""
        if self._tracking.done():
            with suppress(StoreLockedError):
                self._tracking.result()
        return self.is_safe or self._tracking.done()

    def on_event(self, worker: int, event: Mapping[str, Any]) -> None:
        """Take in what a worker tells."""
        if event["event"] == "opened" and self._records is None:
            self._open(str(event["study_id"]), event["n_trials"])
        elif event["event"] == "error" and event["text"] not in self._errors:
            self._errors.append(str(event["text"]))
        elif event["event"] == "ended" and event["state"] != "FAIL":
            self._failed_in_a_row = 0
        elif event["event"] == "undrawn" and self._drawing is not None:
            self._drawing.add(event["trial"])
        if event["event"] == "ended" and self._records is not None:
            self.display.take_stock(self._trials())  # another command may be at the same study
        self.display.handle(worker, event)

    def _open(self, study_id: str, n_trials: int | None) -> None:
        outbox = open_outbox(Path(OUTBOX), study_id)
        # The first worker has just opened it, and is at work: an outage now is no reason to end, nor to be deaf.
        store = replace(self.store, patience_seconds=OPEN_SECONDS)
        study = store.lasting(lambda: load_study(store, self.spec.name))
        leases = Leases(self.store.engine, self.workdir / ".owners")
        identity = StudyIdentity(study_id, self.spec.name, {})
        folder = self.workdir / self.spec.name
        self._records = Records(self.spec, self.store, study, leases, outbox, identity, folder)
        parent_status(outbox, "RUNNING", words="running")
        self._drawing = Drawing(self.spec.draw, outbox, folder)
        trials = self._trials()
        self._drawing.add_left(trials)
        self.display.open(trials, n_trials)
        if is_sqlite(self.store.url):  # else another machine's outbox has them
            ended = [t for t in trials if t.state in {TrialState.COMPLETE, TrialState.PRUNED}]
            if lost := outbox.strangers([str(t.number) for t in ended]):
                self.display.say(f"{OUTBOX}/ knows nothing of {len(lost)} ended trials: MLflow can't be told of them")

    def _deliver(self) -> str | None:
        """Deliver to MLflow from when its store is there and the study is open; gives why it is not, where it can't."""
        if self._delivery is not None:
            return self._delivery.tracker.problem
        if self._records is None or not self._tracking.done():
            return self._problem
        if (error := self._tracking.exception()) is not None:
            if time.monotonic() - self._tried > AGAIN_SECONDS:
                self._tried, self._tracking = time.monotonic(), self.open_tracking()
            return str(error) if isinstance(error, HpoError) else in_a_line(error)
        from hpo.tracking import Tracker

        records = self._records
        study_id = records.identity.study_id
        tracker = Tracker(self.tracking_uri, records.outbox, self.spec.name, study_id, self.store.making)
        self._delivery = Delivery(tracker, delivery_lock(Path(OUTBOX), study_id))
        return None

    def _trials(self) -> Sequence[FrozenTrial]:
        """All trials, as they are, or were when the store was last there."""
        if self._records is not None:
            try:
                self._known = self._records.trials()
            except STORE_ERRORS as error:
                log.debug("the store can't be used now: %s", first_line(error))
        return self._known

    def on_death(self, owner: str, how: str, asked: bool) -> bool:  # noqa: FBT001  a callback's plain argument
        """Settle what a dead worker left: its trial is free at once; the third death with no new epoch fails it.

        Returns:
            False where three trials in a row have failed so: the cause is not in a trial.
        """
        try:
            return self._settle_death(owner, how, asked=asked)
        except STORE_ERRORS as error:  # whoever looks for work sees that it is dead
            tell = log.debug if disk_is_full(error) else self.display.say  # of a full disk the worker has told
            tell(f"a worker died ({how}), and the store can't be used now ({first_line(error)})")
            return True

    def _settle_death(self, owner: str, how: str, *, asked: bool) -> bool:
        if self._records is None:
            if not asked:
                self.display.say(f"a worker died ({how}); another takes its place")
            return True
        records = self._records
        doomed = []
        at = ""
        with records.store.lock():
            its = records.leases.release_owner(owner)
            for trial_id in its:
                trial = records.trial(trial_id)
                if trial.state != TrialState.RUNNING:
                    continue
                deaths = (
                    0 if asked or len(its) > 1 else records.leases.note_death(trial_id, len(trial.intermediate_values))
                )
                nth = _ORDINALS[min(deaths, MAX_DEATHS)]
                at = f" at trial {trial.number}, for the {nth} time with no new epoch between"
                if len(its) > 1:  # each gets a worker of its own now: then it is sure which of them it is
                    at = f" at {len(its)} trials"
                if deaths >= MAX_DEATHS:
                    undertaker = become_owner(self.workdir / ".owners")
                    doomed.append((undertaker, records.leases.claim(trial_id, undertaker)))
                else:
                    rest_run(records.outbox, trial.number, "interrupted")
        if not asked:
            self.display.say(f"a worker died{at} ({how}); another takes its place")
        for undertaker, lease in doomed:
            reason = f"its worker died {MAX_DEATHS} times in a row with no new epoch between; the last time: {how}"
            records.end(lease, TrialState.FAIL, reason)
            records.leases.leave(undertaker)
            self._failed_in_a_row += 1
            self.display.say(f"trial {records.trial(lease.trial_id).number}: FAIL ({reason})")
        if asked or self._failed_in_a_row < MAX_FAILURES_IN_A_ROW:
            return True
        self._errors.append(f"{MAX_FAILURES_IN_A_ROW} trials in a row failed: their workers died ({how})")
        return False

    def tick(self) -> None:
        """Draw anew, and say what is new about MLflow."""
        self._say_of_mlflow()
        self.display.tick()

    def _say_of_mlflow(self) -> None:
        problem = self._deliver()
        if problem is not None and self._problem is None:
            self.display.say(f"MLflow is not reached ({problem}); the study goes on, and delivers when it is")
        self._problem = problem

    def finish(self, launcher: Launcher, code: int) -> int:
        """Bring the stores to rest and say how it ended; gives the exit code."""
        say = self.display.say
        for text in self._errors:
            sys.stderr.write(f"{text}\n")
        timed_out, done = code == 0 and launcher.stopping, code == 0 and not launcher.stopping
        if self._records is not None and self._drawing is not None:
            try:
                self._wait_for_pictures(launcher, within=TIMED_OUT_SECONDS if timed_out else math.inf)
                self._rest(code, done=done)
                if launcher.stop_signal is None:  # within ten seconds of a signal all must be over
                    self._draw()
            except (OSError, *STORE_ERRORS) as error:  # a full disk, say: it must not hide how the study ended
                log.debug("%s", error, exc_info=True)
                if not (self._errors and disk_is_full(error)):
                    sys.stderr.write(f"the stores could not be brought to rest: {first_line(error)}\n")
            trials = self._trials()
            waiting = self._delivered(self._records.outbox, launcher)
            if table := best_table(self.spec, trials):
                say(f"best trials of {self.spec.name}, by their {self.spec.value} epoch")
                self.display.console.print(table)
            if done:
                self._say_summary(trials)
                self._say_done(trials)
            else:
                say(f"study {self.spec.name}: {self.display.spent()}")
            if time_line := times.words(times.total(trials)):
                say(time_line)
            self._say_where(waiting)
        if launcher.stop_signal is not None:
            say(f"interrupted; the same command goes on: {same_command()}")
            return 128 + launcher.stop_signal
        if timed_out:
            say(f"timeout reached; the same command goes on: {same_command()}")
        return code

    def _delivered(self, outbox: Outbox, launcher: Launcher) -> int:
        """Let what waits be delivered; gives how many rows still wait."""
        began, told = time.monotonic(), False
        if self._tracking.done() and self._tracking.exception() is not None:  # a last time
            self._tried, self._tracking = began, self.open_tracking()
        while not self._tracking.done() and launcher.stopping_for <= MADE_SECONDS:
            if time.monotonic() - began > PATIENT_SECONDS and not told:
                told = True
                self.display.say("MLflow's store is still being opened")
            time.sleep(0.05)
        self._say_of_mlflow()
        if self._delivery is None:
            return outbox.n_waiting()
        waiting = self._delivery.drain(
            lambda seconds: (
                launcher.stop_signal is not None
                and (seconds > SIGNALLED_SECONDS or launcher.stopping_for > LAST_SECONDS)
            )
        )
        self._delivery.close()
        return waiting

    def _wait_for_pictures(self, launcher: Launcher, within: float) -> None:
        """Let what is to be drawn be drawn; a signal, or the time `within` (seconds), leaves it to the next command."""
        if self._drawing is None or self._records is None:
            return
        told = False

        def give_up(seconds: float) -> bool:
            nonlocal told
            if seconds > PATIENT_SECONDS and not told:
                told = True
                self.display.say("the last trials' pictures are drawn; Ctrl-C leaves them to the next command")
            return launcher.stop_signal is not None or seconds > within

        self._drawing.add_left(self._records.trials())
        self._drawing.close(give_up)

    def _say_summary(self, trials: Sequence[FrozenTrial]) -> None:
        if self.spec.summarize is None:
            return
        try:
            for line in self.spec.summarize(trials):
                self.display.say(line)
        except Exception as error:  # the user's code, and the study is done
            log.debug("summarize raised", exc_info=True)
            self.display.say(f"summarize of study {self.spec.name!r} raises {type(error).__name__}: {error}")

    def _draw(self) -> None:
        """Put the picture of the search beside the leaderboard, and into MLflow."""
        from hpo.timeline import draw  # matplotlib: only now that all is trained

        if self._records is not None and (picture := draw(self.spec, self._records.trials())) is not None:
            file = self._records.folder / "search.png"
            write_whole(file, picture)
            put_artifact(self._records.outbox, PARENT, file)

    def _say_done(self, trials: Sequence[FrozenTrial]) -> None:
        counts = Counter(t.state for t in trials)
        n_done = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
        bound = self.display.n_trials
        waiting, more = counts[TrialState.WAITING], ""
        if waiting and self.may_grow:
            more = f"; {waiting} wait{'s'[: waiting == 1]}: `--trials {n_done + waiting}` lets {waiting} more run"
        elif self.may_grow and bound is not None and n_done >= bound:
            more = f"; `--trials {n_done * 2}` would let it go on"
        self.display.say(f"study {self.spec.name} is done: {n_done} trial{'s'[: n_done != 1]}{more}")
        if not ranking(self.spec, trials):
            self.display.say("no trial has a value: all of them diverged, failed or were pruned")

    def _rest(self, code: int, *, done: bool) -> None:
        """Say in MLflow how the study is now, unless workers of another command are at it."""
        if self._records is None:
            return
        self._records.end_runs_ended_elsewhere()
        if self._records_in_use():
            return
        status = "FINISHED" if done else "FAILED" if code == 1 else "SCHEDULED"
        words = "done" if done else "interrupted"
        parent_status(self._records.outbox, status, words=words)
        log_best(self._records.outbox, self.spec, self._records.trials(), self._records.folder, words)

    def _records_in_use(self) -> bool:
        """Whether workers of another command are at this study."""
        if self._records is None:
            return False
        trials = self._records.trials()
        running = [t for t in trials if t.state == TrialState.RUNNING]
        return len(running) > len(self._records.resting(trials))

    def _say_where(self, waiting: int) -> None:
        say = self.display.say
        say(f"store: {self.store}")
        if waiting:
            is_file = self.tracking_uri.startswith("sqlite:")
            what = "has not been told all yet" if is_file else "is not reached yet"
            where = f"MLflow at {self.tracking_uri} {what}"
            say(f"{where}: {waiting} rows wait in {OUTBOX}/; the same command delivers them")
        if self.tracking_uri.startswith("sqlite:"):
            uri = "" if self.tracking_uri == DEFAULT_URI else f" --backend-store-uri {shlex.quote(self.tracking_uri)}"
            say(f"look at the trials: cd {shlex.quote(str(Path.cwd()))} && mlflow ui{uri}")
        else:
            say(f"look at the trials: {self.tracking_uri}")
