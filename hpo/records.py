"""Where a study is kept: Optuna's store, the leases beside it, the outbox, the trials' folder.

And how a trial ends in all of them. What is told here is told by the trial's owner, or refused.
"""

import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.board import Board
from hpo.drawing import mark_undrawn
from hpo.errors import LeaseLostError
from hpo.leases import SURE_SECONDS, Lease, Leases
from hpo.outbox import Outbox
from hpo.schedulers.protocol import DROPPED, ENDED, PAUSED, RESTED, SECONDS, has_its_epochs, params_of, trial_value
from hpo.seeds import configuration_key
from hpo.spec import Metrics, Params, StudySpec
from hpo.storage import Store
from hpo.times import TIMES
from hpo.tracked import (
    StudyIdentity,
    end_run,
    is_due,
    log_best,
    log_end,
    log_epoch,
    log_tags,
    log_times,
    log_value,
    open_run,
    put_artifact,
    rank,
    rest_run,
)

log = logging.getLogger(__name__)

Stop = Callable[[], bool]


P = ParamSpec("P")
T = TypeVar("T")


def _lasting(
    method: "Callable[Concatenate[Records, P], T]",
) -> "Callable[Concatenate[Records, P], T]":
    """A method that is begun again where the store goes away in it."""

    @functools.wraps(method)
    def lasting(self: "Records", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.store.lasting(lambda: method(self, *args, **kwargs))

    return lasting


@dataclass(frozen=True, slots=True)
class Records:
    """All places in which a study is kept.

    Attributes:
        folder: `trials/<study>`; a trial's own folder is its number in it.
        board: what its ended trials come to.
    """

    spec: StudySpec
    store: Store
    study: optuna.Study
    leases: Leases
    outbox: Outbox
    identity: StudyIdentity
    folder: Path
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "board", Board(self.spec))

    @_lasting
    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order of their numbers; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    @_lasting
    def trial(self, trial_id: int) -> FrozenTrial:
        """One trial as the store has it now."""
        return self.study._storage.get_trial(trial_id)  # noqa: SLF001  ask and tell by id has no public way

    @_lasting
    def resting(self, trials: Sequence[FrozenTrial]) -> frozenset[int]:
        """Numbers of trials that are RUNNING in Optuna and have no live owner."""
        running = {t._trial_id: t.number for t in trials if t.state == TrialState.RUNNING}  # noqa: SLF001
        return frozenset(running[trial_id] for trial_id in self.leases.free_among(running))

    @_lasting
    def refuse_lost(self, lease: Lease) -> None:
        """Let only its owner write to a trial.

        Raises:
            LeaseLostError: the lease has another owner by now.
        """
        if not self.leases.holds(lease):
            raise LeaseLostError(f"trial {lease.trial_id} has another owner")

    def end_runs_ended_elsewhere(self) -> None:
        """Let the runs that were begun from here say the end to which another machine brought their trials."""
        unended = self.outbox.unended()
        trials = self.trials() if unended else []
        for trial in (trials[int(run)] for run in unended):
            if trial.state.is_finished():
                log_end(self.outbox, trial.number, trial.state, trial.user_attrs.get("hpo.reason"))

    @_lasting
    def open_run(self, trial: FrozenTrial, params: Params, *, seed: int, attempt: int) -> None:
        """Let a trial's run begin, or go on, in MLflow."""
        open_run(self.outbox, self.identity, trial.number, params, trial.params, seed=seed, attempt=attempt)

    @_lasting
    def log_epoch(self, number: int, epoch: int, metrics: Metrics) -> list[str]:
        """Let MLflow have an epoch's metrics; gives the names of those that it has otherwise already."""
        return log_epoch(self.outbox, number, epoch, metrics)

    @_lasting
    def log_tags(self, number: int, tags: Mapping[str, str]) -> None:
        """Note in MLflow what a trainer has to say of its trial."""
        log_tags(self.outbox, number, tags)

    def report(self, lease: Lease, epoch: int, value: float) -> None:
        """Tell Optuna a trial's intermediate value.

        Raises:
            LeaseLostError: the store was away, and the trial has another owner since.
        """
        began = time.monotonic()

        def told() -> None:
            if time.monotonic() - began > SURE_SECONDS:
                self.refuse_lost(lease)
            self.study._storage.set_trial_intermediate_value(lease.trial_id, epoch, value)  # noqa: SLF001

        self.store.lasting(told)

    def rest(self, lease: Lease, words: str, seconds: float, times: Mapping[str, float]) -> None:
        """Leave a trial that was interrupted or paused (`words`).

        Args:
            lease: of the trial.
            words: why it rests.
            seconds: what it has taken of the device in all.
            times: what it has taken by kind in all.
        """
        self._rest(lease, words, seconds, times)
        if words == PAUSED:
            self.drop_checkpoints()

    @_lasting
    def _rest(self, lease: Lease, words: str, seconds: float, times: Mapping[str, float]) -> None:
        with self.store.lock():
            self.refuse_lost(lease)
            trial = self.trial(lease.trial_id)
            self.note_seconds(lease, seconds)
            self._note_times(lease, trial, times)
            if words == PAUSED and trial.user_attrs.get(DROPPED):
                self._set(lease.trial_id, DROPPED, 0)  # it is there again
            if words == PAUSED:
                self._set(lease.trial_id, RESTED, len(trial.intermediate_values))
            rest_run(self.outbox, trial.number, words)
            self.leases.release(lease)

    @_lasting
    def note_seconds(self, lease: Lease, seconds: float) -> None:
        """Keep how many device seconds a trial has taken in all."""
        self._set(lease.trial_id, SECONDS, round(seconds, 3))

    def _note_times(self, lease: Lease, trial: FrozenTrial, times: Mapping[str, float]) -> None:
        self._set(lease.trial_id, TIMES, dict(times))
        log_times(self.outbox, trial.number, len(trial.intermediate_values), times, attempt=lease.token)

    def end(
        self,
        lease: Lease,
        state: TrialState,
        reason: str | None,
        seconds: float | None = None,
        times: Mapping[str, float] | None = None,
    ) -> float | None:
        """End a trial: first the outbox is told, then Optuna; then what it no longer needs goes.

        Args:
            lease: of the trial.
            state: COMPLETE, PRUNED or FAIL.
            reason: why it was pruned or failed.
            seconds: what it took of the device in all.
            times: what it has taken by kind in all.

        Returns:
            The trial's value.

        Raises:
            LeaseLostError: the trial has another owner by now.
        """
        number, value = self._end(lease, state, reason, seconds, times)
        self._remove_checkpoints(number)
        return value

    @_lasting
    def _end(
        self,
        lease: Lease,
        state: TrialState,
        reason: str | None,
        seconds: float | None,
        times: Mapping[str, float] | None,
    ) -> tuple[int, float | None]:
        trial = self.trial(lease.trial_id)  # while the lease is ours, nobody else changes it
        if trial.state.is_finished():  # the store has it, and went away before it could say so
            self.leases.drop(lease.trial_id)
            return trial.number, trial.value if state == TrialState.COMPLETE else None
        self.refuse_lost(lease)
        if seconds is not None:  # nobody need wait for what concerns no other trial
            self.note_seconds(lease, seconds)
        if times is not None:
            self._note_times(lease, trial, times)
        with self.store.lock():
            self.refuse_lost(lease)
            value = trial_value(self.spec, trial) if state != TrialState.FAIL else None
            its_own = [(trial.number, value)] if state == TrialState.COMPLETE and value is not None else []
            trials = self.trials()  # once: all that run are read anew for it
            best_first = self._best_first(trials, its_own, self.spec.keep_weights + 1)
            self._let_go([n for n in best_first[self.spec.keep_weights :] if n != trial.number])
            if self.spec.draw is not None:
                mark_undrawn(self.folder / str(trial.number))
            kept = trial.number in best_first[: self.spec.keep_weights]
            self._close(lease, trial, state, reason, value, n_ended=_n_ended(trials), kept=kept)
            if is_due(self.folder):
                log_best(self.outbox, self.spec, self.trials(), self.folder)
        return trial.number, value

    def end_paused(self, leases: Sequence[Lease], reason: str, stop: Stop) -> Iterator[int]:
        """Prune trials that are paused when their study ends; those that are among the best keep their weights.

        There may be hundreds: what concerns all of them is done once.

        Args:
            leases: of the trials.
            reason: why they end.
            stop: true when the rest is to be left to the next command.

        Yields:
            The numbers of those that are among the best, as each has ended: they are worth a picture.

        Raises:
            LeaseLostError: a trial has another owner by now.
        """
        trials = [self.trial(lease.trial_id) for lease in leases]
        ending = [(lease, t, trial_value(self.spec, t)) for lease, t in zip(leases, trials, strict=True)]
        all_trials = self.trials()  # none ends meanwhile, but by another command of a greater budget
        valued = [(trial.number, value) for _, trial, value in ending if value is not None]
        best_first, n_ended = self._best_first(all_trials, valued), _n_ended(all_trials)
        best = set(best_first[: self.spec.keep_weights])
        for n, (lease, trial, value) in enumerate(ending):
            if stop():
                break
            self._prune(lease, trial, reason, value, n_ended=n_ended + n, kept=trial.number in best)
            self._remove_checkpoints(trial.number)
            if trial.number in best:
                yield trial.number
        self._settle_best([number for number in best_first if number not in best])

    @_lasting
    def _prune(
        self, lease: Lease, trial: FrozenTrial, reason: str, value: float | None, *, n_ended: int, kept: bool
    ) -> None:
        with self.store.lock():
            if self.trial(lease.trial_id).state.is_finished():  # the store went away before it could say so
                self.leases.drop(lease.trial_id)
                return
            self.refuse_lost(lease)
            if kept and self.spec.draw is not None:
                mark_undrawn(self.folder / str(trial.number))
            self._close(lease, trial, TrialState.PRUNED, reason, value, n_ended=n_ended, kept=kept)

    @_lasting
    def _settle_best(self, not_kept: Collection[int]) -> None:
        with self.store.lock():
            trials = self.trials()
            self._let_go([number for number in not_kept if trials[number].state.is_finished()])
            log_best(self.outbox, self.spec, trials, self.folder)

    def _best_first(
        self, trials: Sequence[FrozenTrial], besides: Sequence[tuple[int, float]], n: int | None = None
    ) -> list[int]:
        """Numbers of the trials whose values count, and of those that are about to count; the best `n`, or all."""
        self.board.take_in(trials)
        order = [*self.board.order[:n], *(rank(self.spec, v, number) for number, v in besides)]
        return [number for _, number in sorted(order)[:n]]

    def _close(
        self,
        lease: Lease,
        trial: FrozenTrial,
        state: TrialState,
        reason: str | None,
        value: float | None,
        *,
        n_ended: int,
        kept: bool,
    ) -> None:
        """Tell the outbox, then Optuna, that a trial has ended, after so many others; then its lease goes."""
        number, trial_id = trial.number, lease.trial_id
        self._set(trial_id, ENDED, n_ended)
        if reason:
            self._set(trial_id, "hpo.reason", reason[:2000])
        if run_id := self.outbox.run_id(str(number)):
            self._set(trial_id, "mlflow.run_id", run_id)
        weights = self._weights(number)
        if kept and weights.is_dir():
            for file in sorted(weights.rglob("*")):
                put_artifact(self.outbox, str(number), file, "weights")
        elif kept and trial.user_attrs.get(DROPPED):
            log.warning("trial %d is among the best, but its weights were let go of for room", number)
        elif not kept:
            shutil.rmtree(weights, ignore_errors=True)
        if value is not None:
            log_value(self.outbox, number, self.spec, value, len(trial.intermediate_values))
        end_run(self.outbox, number, state, reason=reason, artifacts=self.folder / str(number) / "artifacts")
        values = None if value is None else [value]
        self.study._storage.set_trial_state_values(trial_id, state=state, values=values)  # noqa: SLF001
        self.leases.drop(trial_id)

    def _let_go(self, numbers: Collection[int]) -> None:
        """Let go of the weights of ended trials that are no longer among the best, here and in MLflow."""
        for number in numbers:
            if self._weights(number).is_dir():
                self.outbox.put(str(number), "artifact_gone", {"folder": "weights"})
                shutil.rmtree(self._weights(number), ignore_errors=True)

    def _remove_checkpoints(self, number: int) -> None:
        if not self.spec.reuse_epochs:
            shutil.rmtree(self.folder / str(number) / "checkpoints", ignore_errors=True)

    def _set(self, trial_id: int, name: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial_id, name, value)  # noqa: SLF001

    @_lasting
    def lend_checkpoints(self, trial: FrozenTrial) -> None:
        """Let a trial begin with what another of the same configuration has trained, if it has nothing of its own."""
        own, key = self.folder / str(trial.number) / "checkpoints", configuration_key(params_of(trial))
        if own.exists():
            return
        with self.store.lock():  # nobody begins to train the other one meanwhile
            trials = self.trials()
            resting = self.resting(trials)
            twins = [
                t for t in trials if t.number != trial.number and configuration_key(params_of(t)) == key
                and (t.state.is_finished() or t.number in resting)
                and (self.folder / str(t.number) / "checkpoints").is_dir()
            ]  # fmt: skip
            if not twins:
                return
            longest = max(twins, key=lambda t: (len(t.intermediate_values), -t.number))
            beside = own.with_name("checkpoints.lent")
            shutil.rmtree(beside, ignore_errors=True)
            try:
                shutil.copytree(self.folder / str(longest.number) / "checkpoints", beside)
                beside.rename(own)
            except OSError as error:
                log.warning("trial %d: can't go on from trial %d (%s)", trial.number, longest.number, error)

    @_lasting
    def drop_checkpoints(self) -> None:
        """Let go of what paused trials keep on the disk beyond the study's cap: of the worst first. It can be rebuilt.

        Only time is lost: the same params and seed give the same epochs. Trials that are among the best by now keep
        their weights, and as many again, since the order changes until a study's end.
        """
        cap = self.spec.checkpoint_bytes
        if cap is None:
            return
        with self.store.lock():
            trials = self.trials()
            paused = [n for n in self.resting(trials) if has_its_epochs(self.spec, trials[n])]
            values = {n: trial_value(self.spec, trials[n]) for n in paused}
            best_first = self._best_first(trials, [(n, value) for n, value in values.items() if value is not None])
            best = set(best_first[: 2 * self.spec.keep_weights])
            parts = {n: self._droppable(n, best=n in best) for n in paused}
            sizes = {n: size for n, folders in parts.items() if (size := _size(folders))}
            worst_first = sorted(sizes, key=lambda n: _worth(self.spec, values[n], n), reverse=True)
            for number in worst_first:
                if sum(sizes.values()) <= cap:
                    return
                del sizes[number]
                self._set(trials[number]._trial_id, DROPPED, len(trials[number].intermediate_values))  # noqa: SLF001
                for folder in parts[number]:
                    shutil.rmtree(folder, ignore_errors=True)

    def _droppable(self, number: int, *, best: bool) -> list[Path]:
        checkpoints = self.folder / str(number) / "checkpoints"
        return [checkpoints] if best else [checkpoints, self._weights(number)]

    def _weights(self, number: int) -> Path:
        return self.folder / str(number) / "weights"


def _n_ended(trials: Sequence[FrozenTrial]) -> int:
    return sum(t.state.is_finished() for t in trials)


def _size(folders: Sequence[Path]) -> int:
    """Bytes that all their files take; one file of two names counts once."""
    found = [file.stat() for folder in folders for file in folder.rglob("*") if file.is_file()]
    return sum({(f.st_dev, f.st_ino): f.st_size for f in found}.values())


def _worth(spec: StudySpec, value: float | None, number: int) -> tuple[float, int]:
    return (math.inf, number) if value is None else rank(spec, value, number)
