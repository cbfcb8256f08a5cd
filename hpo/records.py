"""Where a study is kept: Optuna's store, the leases beside it, the outbox, the trials' folder.

And how a trial ends in all of them. What is told here is told by the trial's owner, or refused.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import LeaseLostError
from hpo.leases import Lease, Leases
from hpo.outbox import Outbox
from hpo.schedulers.protocol import DROPPED, PAUSED, SECONDS
from hpo.seeds import configuration_key
from hpo.spec import StudySpec
from hpo.storage import Store
from hpo.tracked import StudyIdentity, end_run, log_best, params_of, put_artifact, rank, ranking, rest_run


@dataclass(frozen=True, slots=True)
class Records:
    """All places in which a study is kept.

    Attributes:
        folder: `trials/<study>`; a trial's own folder is its number in it.
    """

    spec: StudySpec
    store: Store
    study: optuna.Study
    leases: Leases
    outbox: Outbox
    identity: StudyIdentity
    folder: Path

    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order of their numbers; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def trial(self, trial_id: int) -> FrozenTrial:
        """One trial as the store has it now."""
        return self.study._storage.get_trial(trial_id)  # noqa: SLF001  ask and tell by id has no public way

    def resting(self) -> frozenset[int]:
        """Numbers of trials that are RUNNING in Optuna and have no live owner."""
        running = {t._trial_id: t.number for t in self.trials() if t.state == TrialState.RUNNING}  # noqa: SLF001
        return frozenset(running[trial_id] for trial_id in self.leases.free_among(running))

    def refuse_lost(self, lease: Lease) -> None:
        """Let only its owner write to a trial.

        Raises:
            LeaseLostError: the lease has another owner by now.
        """
        if not self.leases.holds(lease):
            raise LeaseLostError(f"trial {lease.trial_id} has another owner")

    def report(self, lease: Lease, epoch: int, value: float) -> None:
        """Tell Optuna a trial's intermediate value."""
        self.study._storage.set_trial_intermediate_value(lease.trial_id, epoch, value)  # noqa: SLF001

    def rest(self, lease: Lease, number: int, words: str, seconds: float) -> None:
        """Leave a trial that was interrupted or paused (`words`) after some device seconds to whoever takes it next."""
        with self.store.lock():
            self.refuse_lost(lease)
            self._add_seconds(lease, seconds)
            if words == PAUSED and self.trial(lease.trial_id).user_attrs.get(DROPPED):
                self.study._storage.set_trial_user_attr(lease.trial_id, DROPPED, 0)  # noqa: SLF001  it is there again
            rest_run(self.outbox, number, words)
            self.leases.release(lease)
        if words == PAUSED:
            self._drop_checkpoints()

    def end(self, lease: Lease, state: TrialState, reason: str | None, seconds: float = 0.0) -> float | None:
        """End a trial: first the outbox is told, then Optuna; then what it no longer needs goes.

        Args:
            lease: of the trial.
            state: COMPLETE, PRUNED or FAIL.
            reason: why it was pruned or failed.
            seconds: what it took of the device since its lease was claimed.

        Returns:
            The trial's value.

        Raises:
            LeaseLostError: the trial has another owner by now.
        """
        storage = self.study._storage  # noqa: SLF001
        with self.store.lock():
            self.refuse_lost(lease)
            self._add_seconds(lease, seconds)
            trial = self.trial(lease.trial_id)
            workdir = self.folder / str(trial.number)
            value = trial_value(self.spec, trial) if state != TrialState.FAIL else None
            if reason:
                storage.set_trial_user_attr(lease.trial_id, "hpo.reason", reason[:2000])
            if run_id := self.outbox.run_id(str(trial.number)):
                storage.set_trial_user_attr(lease.trial_id, "mlflow.run_id", run_id)
            self._keep_weights(trial, state, value, reason)
            end_run(self.outbox, trial.number, state, reason=reason, artifacts=workdir / "artifacts")
            storage.set_trial_state_values(lease.trial_id, state=state, values=None if value is None else [value])
            self.leases.drop(lease.trial_id)
            log_best(self.outbox, self.spec, self.trials(), self.folder)
        if not self.spec.reuse_epochs:
            shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
        return value

    def lend_checkpoints(self, trial: FrozenTrial) -> None:
        """Let a trial begin with what another of the same configuration has trained, if it has nothing of its own."""
        own, key = self.folder / str(trial.number) / "checkpoints", configuration_key(params_of(trial))
        twins = [
            t for t in self.trials() if t.number != trial.number and configuration_key(params_of(t)) == key
            and (self.folder / str(t.number) / "checkpoints").is_dir()
        ]  # fmt: skip
        if own.exists() or not twins:
            return
        longest = max(twins, key=lambda t: (len(t.intermediate_values), -t.number))
        beside = own.with_name("checkpoints.lent")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(self.folder / str(longest.number) / "checkpoints", beside)
        beside.rename(own)

    def _add_seconds(self, lease: Lease, seconds: float) -> None:
        if seconds:
            before = self.trial(lease.trial_id).user_attrs.get(SECONDS, 0.0)
            self.study._storage.set_trial_user_attr(lease.trial_id, SECONDS, before + seconds)  # noqa: SLF001

    def _drop_checkpoints(self) -> None:
        """Let go of paused trials' checkpoints that are over the study's cap: of the worst first. They can be rebuilt.

        Of what a trial may be continued from only time is lost: the same params and seed give the same epochs.
        """
        cap = self.spec.checkpoint_bytes
        if cap is None:
            return
        with self.store.lock():
            trials, resting = self.trials(), self.resting()
            sizes = {n: size for n in resting if (size := _size(self.folder / str(n) / "checkpoints"))}
            values = {n: trial_value(self.spec, trials[n]) for n in sizes}
            worst_first = sorted(sizes, key=lambda n: rank(self.spec, values[n] or -math.inf, n), reverse=True)
            for number in worst_first:
                if sum(sizes.values()) <= cap:
                    return
                del sizes[number]
                storage, trial_id = self.study._storage, trials[number]._trial_id  # noqa: SLF001
                storage.set_trial_user_attr(trial_id, DROPPED, len(trials[number].intermediate_values))
                shutil.rmtree(self.folder / str(number) / "checkpoints", ignore_errors=True)

    def _keep_weights(self, trial: FrozenTrial, state: TrialState, value: float | None, reason: str | None) -> None:
        """Upload the weights of a trial that is among the best; let go of those that it displaces."""
        order = {t.number: rank(self.spec, t.value or 0.0, t.number) for t in ranking(self.spec, self.trials())}
        if value is not None and (state == TrialState.COMPLETE or (reason or "").startswith(PAUSED)):
            order[trial.number] = rank(self.spec, value, trial.number)
        best_first = sorted(order, key=lambda number: order[number])
        kept, displaced = best_first[: self.spec.keep_weights], best_first[self.spec.keep_weights :]
        weights = self._weights(trial.number)
        if trial.number in kept and weights.is_dir():
            for file in sorted(weights.rglob("*")):
                put_artifact(self.outbox, str(trial.number), file, "weights")
        elif trial.number not in kept:
            shutil.rmtree(weights, ignore_errors=True)
        for number in displaced:
            if self._weights(number).is_dir():
                self.outbox.put(str(number), "artifact_gone", {"folder": "weights"})
                shutil.rmtree(self._weights(number), ignore_errors=True)

    def _weights(self, number: int) -> Path:
        return self.folder / str(number) / "weights"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def trial_value(spec: StudySpec, trial: FrozenTrial) -> float | None:
    """A trial's value: its best or its last epoch's, as the study says; None where it has no epoch."""
    values = [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)]
    if not values:
        return None
    if spec.value == "last":
        return values[-1]
    return max(values) if spec.direction == "maximize" else min(values)
