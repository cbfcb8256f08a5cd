"""One trial: for each epoch of the trainer, log it, report it, stop if pruned.

Each thing that can go wrong has its policy beside it.
"""

import gc
import logging
import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import DiskFullError, LeaseLostError, UserError, disk_is_full, room
from hpo.leases import GRACE_SECONDS, SURE_SECONDS, Lease, Stopping, kept_alive
from hpo.mirror import Mirror
from hpo.records import Records
from hpo.redaction import redacted
from hpo.schedulers.protocol import PAUSED, SECONDS, params_of, pause_at, seconds_left
from hpo.seeds import configuration_seed, trial_seed
from hpo.spec import Metrics, StudySpec, Trainer
from hpo.storage import STORE_ERRORS
from hpo.times import KINDS, TIMES, Stopwatch, added
from hpo.tracked import finite
from hpo.whole import write_whole

log = logging.getLogger(__name__)

_SAFE_SECONDS = GRACE_SECONDS - 5.0
"""Nobody can have a trial whose lease was renewed since."""

Emit = Callable[[Mapping[str, Any]], None]
"""Tells whoever watches what happens: a mapping with `event` and what belongs to it, as JSON takes it."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """What every trial of a worker is run with.

    Attributes:
        records: where the study is kept.
        pruner: asked after every epoch.
        trainer: runs the trials.
        stopping: true when this worker is to end, or must let go of its trial.
        emit: tells whoever watches what happens.
        mirror: where trials' folders are copied to, for other machines.
        share: of the device that is a trial's; the others are those of the worker's other lanes.
    """

    records: Records
    pruner: BasePruner
    trainer: Trainer
    stopping: Stopping
    emit: Emit
    mirror: Mirror | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class _End:
    """How a trial's epochs ended; state None where it is to go on later, `reason` then says why it stopped."""

    state: TrialState | None
    reason: str | None = None
    fault: UserError | None = None
    """What is wrong with the study itself: every other trial would fail of it too."""


_INTERRUPTED = _End(None, "interrupted")
_PAUSED = _End(None, PAUSED)


def run_trial(place: Workplace, lease: Lease, watch: Stopwatch) -> TrialState | None:
    """Run, or go on with, the trial of a lease as far as was decided; tell Optuna and MLflow how it ended.

    Args:
        place: what it is run with.
        lease: on the trial.
        watch: of the worker; what it counts from the last trial to this one's end is kept with this one.

    Returns:
        Its state; None where it was interrupted or paused: it stays RUNNING in Optuna, for whoever takes it next.

    Raises:
        LeaseLostError: another worker owns it by now.
        DiskFullError: no room; the trial can go on once there is.
        UserError: what the trainer yields can't be used; the trial has failed of it, and all others would.
    """
    records = place.records
    trial = records.trial(lease.trial_id)
    params, seed_by = params_of(trial), records.spec.seed_by
    seed = trial_seed(records.spec.seed, trial.number if seed_by is None else trial.params[seed_by])
    if records.spec.reuse_epochs:
        seed = configuration_seed(records.spec.seed, params)
    clock = _Clock(place, lease, trial.user_attrs.get(SECONDS, 0.0), time.monotonic())
    place.stopping.holds = partial(_holds, records, lease, place.stopping)
    with kept_alive(records.leases, lease, place.stopping, clock.beat), _its_folder(place, trial, lease) as workdir:
        records.open_run(trial, params, seed=seed, attempt=lease.token)
        place.emit({"event": "started", "trial": trial.number, "params": dict(params)})
        end = _INTERRUPTED
        for attempt in range(records.spec.retries + 1):
            place.stopping.refuse_lost()
            end = _run_epochs(place, trial, lease, params, seed, workdir, watch)
            if end.state != TrialState.FAIL or end.fault is not None:
                break
            if attempt < records.spec.retries:
                log.warning("trial %d is tried again: %s", trial.number, (end.reason or "").splitlines()[0])
                trial = records.trial(lease.trial_id)  # its epochs so far have been reported
        records.log_tags(trial.number, _tags_of(place.trainer))
    if end.state is None:
        watch.lap("service")
        times = added(trial.user_attrs.get(TIMES, {}), watch.take())
        records.rest(lease, end.reason or "", clock.seconds(), times)
        place.emit({"event": "rested", "trial": trial.number, "reason": end.reason})
        return None
    watch.lap("service")
    times = added(trial.user_attrs.get(TIMES, {}), watch.take())
    value = records.end(lease, end.state, end.reason, clock.seconds(), times)
    if place.mirror is not None and not records.spec.reuse_epochs:
        place.mirror.let_go(trial.number)
    watch.lap("service")
    told = {"event": "ended", "trial": trial.number, "state": end.state.name, "value": value, "reason": end.reason}
    place.emit(told)
    place.emit({"event": "undrawn", "trial": trial.number})
    if end.fault is not None:
        raise end.fault
    return end.state


@contextmanager
def _its_folder(place: Workplace, trial: FrozenTrial, lease: Lease) -> Iterator[Path]:
    """A trial's folder, with what it has trained so far, where that can be had; copied while this lasts."""
    folder = place.records.folder / str(trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    if place.mirror is not None:
        place.mirror.pull(trial.number, folder, lease.token)
    if trial.intermediate_values and not any(folder.iterdir()):
        words = "trial %d starts again from epoch 0: what it had trained is on another machine, or gone"
        log.warning(words, trial.number)
    if place.records.spec.reuse_epochs:
        place.records.lend_checkpoints(trial)
    mirror, stopping = place.mirror, place.stopping
    with nullcontext() if mirror is None else mirror.kept(trial.number, folder, lease.token, lambda: stopping.lost):
        yield folder


@dataclass(frozen=True, slots=True)
class _Clock:
    """Counts a trial's device seconds; those of a worker that is killed too, where they are a budget."""

    place: Workplace
    lease: Lease
    before: float
    began: float

    def seconds(self) -> float:
        """So far, in all."""
        return self.before + (time.monotonic() - self.began) * self.place.share

    def beat(self) -> None:
        """Keep them, and see anew when the study's are used up."""
        records = self.place.records
        if records.spec.timeout_seconds is not None:
            records.note_seconds(self.lease, self.seconds())
            trials = records.trials()
            n_running = sum(t.state == TrialState.RUNNING for t in trials) - len(records.resting(trials))
            rate = self.place.share * max(1, n_running)
            self.place.stopping.deadline = time.monotonic() + seconds_left(records.spec, trials) / rate


class _TrainerError(Exception):
    """The trainer raised: that fails its trial, and only that. Its cause says what."""


def _trained(
    place: Workplace, params: Mapping[str, Any], seed: int, workdir: Path, watch: Stopwatch
) -> Generator[dict[str, float], None, None]:
    """The trainer's epochs as plain numbers; closing it closes them. What passes within it is the trainer's time."""
    epochs: Iterator[Metrics] | None = None
    metric, before = place.records.spec.metric, _trainer_seconds(place.trainer)
    watch.lap("service")
    try:
        epochs = iter(place.trainer.train(params, seed=seed, workdir=workdir))
        for metrics in epochs:
            _refuse_epoch(metrics, metric)
            watch.lap("training")
            yield {name: float(value) for name, value in metrics.items()}
            watch.lap("service")
    except UserError:
        raise
    except GeneratorExit:
        watch.lap("service")
        with _as_trainer_error():
            close = getattr(epochs, "close", None)
            if close is not None:
                close()
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the worker itself is deaf to Ctrl-C
        raise _TrainerError from error
    finally:
        watch.lap("training")
        for kind, seconds in _trainer_seconds(place.trainer).items():
            watch.move("training", kind, seconds - before.get(kind, 0.0))


def _trainer_seconds(trainer: Trainer) -> dict[str, float]:
    """What of a trainer's time so far was no training, by kind, where it says so."""
    seconds = getattr(trainer, "seconds", None)
    if seconds is None:
        return {}
    try:
        told = seconds()
        return {kind: float(told[kind]) for kind in KINDS if kind in told}
    except Exception as error:
        log.warning("the trainer's `seconds` raises %s: %s; its time counts as training", type(error).__name__, error)
        return {}


def _tags_of(trainer: Trainer) -> dict[str, str]:
    """What a trainer has to note of the trial that it has just trained."""
    tags = getattr(trainer, "tags", None)
    if tags is None:
        return {}
    try:
        found = {str(name): redacted(str(value)) for name, value in tags().items()}
        if ours := [name for name in found if name.startswith(("hpo.", "mlflow.", "optuna."))]:
            raise ValueError(f"{ours[0]} is not the trainer's to set")
        return found
    except Exception as error:
        log.warning("the trainer's `tags` raises %s: %s; they are left out", type(error).__name__, error)
        return {}


def _refuse_epoch(metrics: object, metric: str) -> None:
    """What one trial does wrong here every trial does.

    Raises:
        UserError: it yields something else than a mapping with the study's metric in it.
    """
    if not isinstance(metrics, Mapping):
        raise UserError(f"the trainer must yield a mapping of metrics an epoch, got {metrics!r:.80}")
    if odd := [name for name in metrics if not isinstance(name, str)]:
        raise UserError(f"the trainer must yield metrics by name, got {odd[0]!r:.80}")
    if metric not in metrics:
        raise UserError(f"the trainer yields no metric {metric!r}, only {', '.join(map(str, metrics))}")


@contextmanager
def _as_trainer_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _TrainerError from error


def _run_epochs(
    place: Workplace,
    trial: FrozenTrial,
    lease: Lease,
    params: Mapping[str, Any],
    seed: int,
    workdir: Path,
    watch: Stopwatch,
) -> _End:
    epochs = _trained(place, params, seed, workdir, watch)
    try:
        end = _drive(place, trial, lease, epochs)
        epochs.close()  # where it was left early, the trainer keeps what it must
    except STORE_ERRORS:  # a locked store is a UserError, too, and no fault of the trial's
        raise
    except LeaseLostError:
        place.stopping.lost = True
        raise
    except UserError as fault:
        return _End(TrialState.FAIL, redacted(str(fault)), fault)
    except _TrainerError as raised:
        error = raised.__cause__ or raised
        place.stopping.refuse_lost()  # what is written now would be in its new owner's folder
        if disk_is_full(error):
            raise DiskFullError(f"{workdir}: no room for the trial's files ({error}): {room(workdir)}") from None
        (workdir / "artifacts").mkdir(parents=True, exist_ok=True)
        write_whole(workdir / "artifacts" / "error.txt", redacted("".join(traceback.format_exception(error))).encode())
        log.debug("trial %d raised", trial.number, exc_info=error)
        file = workdir / "artifacts" / "error.txt"
        reason = redacted(f"{type(error).__name__}: {error} ({_place(error)}; see {file})")
        # The traceback holds the frames, the frames hold tensors (optuna#1224): let them go before the next trial.
        traceback.clear_frames(error.__traceback__)
        return _End(TrialState.FAIL, reason)
    finally:
        # Now, and not when it is collected: the lane may be at another trial by then. What it raises comes too late.
        with suppress(_TrainerError):
            epochs.close()
        del epochs
        gc.collect()
    return end


def _drive(place: Workplace, trial: FrozenTrial, lease: Lease, epochs: Iterator[Metrics]) -> _End:
    """The loop. Recorded epochs come first and at once: what the stores have of them already is left as it is."""
    records, spec, number = place.records, place.records.spec, trial.number
    reported, until = dict(trial.intermediate_values), pause_at(spec, trial)
    last_reported = max(reported, default=-1)
    warned: set[str] = set()
    for epoch, metrics in enumerate(epochs):
        if diverged := _diverged(spec, metrics):
            return _End(TrialState.PRUNED, f"diverged: {diverged} in epoch {epoch}")
        for name in sorted(set(metrics) - set(finite(metrics)) - warned):
            warned.add(name)
            log.warning("trial %d: %s is not finite in epoch %d: left out", number, name, epoch)
        place.stopping.refuse_lost()
        for name in records.log_epoch(number, epoch, finite(metrics)):
            log.warning("trial %d: epoch %d trained again gives another %s; the first counts", number, epoch, name)
        new = epoch not in reported
        if new:
            records.report(lease, epoch, metrics[spec.metric])
            reported[epoch] = metrics[spec.metric]
        told = {"event": "epoch", "trial": number, "epoch": epoch, "value": metrics[spec.metric], "new": new}
        place.emit(told)
        if epoch >= last_reported and _is_pruned(place, lease):
            return _End(TrialState.PRUNED, f"pruned by {_name(spec.pruner)} after epoch {epoch}")
        if spec.max_epochs is not None and epoch + 1 >= spec.max_epochs:
            break
        if until is not None and epoch + 1 >= until:
            return _PAUSED
        if place.stopping():
            return _INTERRUPTED
    else:
        if place.stopping():
            return _INTERRUPTED
        place.stopping.refuse_lost()  # it may have ended because that could not be seen
    if not reported:
        return _End(TrialState.FAIL, "the trainer yielded no epoch")
    return _End(TrialState.COMPLETE)


def _holds(records: Records, lease: Lease, stopping: Stopping) -> bool:
    """Whether a lease is held; one that was just seen to be is not looked at again.

    Who is asked to stop has seconds: what was renewed so lately that nobody can have it yet is held, and a store that
    is away is not waited for.
    """
    now = time.monotonic()
    if now - stopping.sure_at < (_SAFE_SECONDS if stopping.asked else SURE_SECONDS):
        return True
    ask = partial(records.leases.holds, lease)
    held = ask() if stopping.asked else records.store.lasting(ask)
    stopping.sure_at = now if held else stopping.sure_at
    return held


def _is_pruned(place: Workplace, lease: Lease) -> bool:
    records = place.records
    if isinstance(place.pruner, NopPruner):
        return False
    return records.store.lasting(lambda: place.pruner.prune(records.study, records.trial(lease.trial_id)))


def _diverged(spec: StudySpec, metrics: Metrics) -> str | None:
    """The first metric that must be finite and is not: the study's own, or a loss."""
    for name, value in metrics.items():
        if (name == spec.metric or name.endswith("loss")) and not math.isfinite(value):
            return f"{name} is {value}"
    return None


def _place(error: BaseException) -> str:
    """The line that raised, in the innermost file that is not of an installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and Path(f.filename).parent != Path(__file__).parent]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _name(pruner: object) -> str:
    return pruner if isinstance(pruner, str) else type(pruner).__name__
