"""A worker process: prepares the trainer once, then works on the study until it is done. Started by `hpo.launch`.

It reads its assignment as a line of JSON from its input, says what happens as lines of JSON on its output, and ends
as on SIGTERM when its input ends: then whoever started it is gone.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import DiskFullError, HpoError, UserError, disk_is_full
from hpo.leases import Leases, Stopping, become_owner
from hpo.loading import load_spec
from hpo.objective import Emit, Workplace
from hpo.preflight import preflight
from hpo.records import Records
from hpo.resume import check_params, open_study
from hpo.schedulers.named import make_scheduler
from hpo.schedulers.proposals import make_pruner
from hpo.search import search
from hpo.spec import Context
from hpo.stages import reached
from hpo.storage import open_store

STOPPED = 143

log = logging.getLogger("hpo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a worker is started with.

    Attributes:
        study: as `--study` had it.
        first: whether this worker speaks for all: it checks, estimates and warns.
        owner: the worker's name as an owner of leases.
        workdir: the folder of all studies' trials.
        outbox: the folder of outboxes.
        workers: how many share this machine.
        n_trials: the budget that the command line sets anew, or None.
        began: when the command was started, in seconds since 1970.
    """

    study: str
    first: bool
    owner: str
    storage: str
    data: str | None
    device: str | None
    threads: int
    workers: int
    n_trials: int | None
    workdir: str
    outbox: str
    verbose: bool
    began: float

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def main() -> int:
    """Work; the exit code is one of the service's, 143 where the worker was asked to stop."""
    os.umask(0o077)
    # What a study prints must not be taken for an event: events get the output, prints go to the error output.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: _ask(stopping))
    for number in (signal.SIGINT, signal.SIGHUP):  # the launcher gets them too, and says SIGTERM
        signal.signal(number, signal.SIG_IGN)
    emit = _emitter(events, stopping)
    assignment = Assignment(**json.loads(sys.stdin.readline()))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Told(emit)])
    logging.getLogger("hpo").setLevel(logging.DEBUG if assignment.verbose else logging.WARNING)
    logging.captureWarnings(capture=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        reason = _work(assignment, stopping, emit)
    except HpoError as error:
        log.debug("%s", error, exc_info=True)
        emit({"event": "error", "text": str(error)})
        return error.exit_code
    except (OSError, SQLAlchemyError, StorageInternalError) as error:
        log.debug("%s", error, exc_info=True)
        if disk_is_full(error):
            emit({"event": "error", "text": f"the disk is full ({error}); make room, the same command goes on"})
            return DiskFullError.exit_code
        text = str(error).splitlines()[0]
        if isinstance(error, OSError):  # a folder that can't be written, and the like: nothing that goes away
            emit({"event": "error", "text": f"{error.filename or assignment.workdir}: {error.strerror or text}"})
            return UserError.exit_code
        emit({"event": "notice", "text": f"the store can't be used now ({text}); the worker starts again"})
        return HpoError.exit_code
    emit({"event": "done", "reason": reason})
    return STOPPED if stopping.asked else 0


def _ask(stopping: Stopping) -> None:
    stopping.asked = True


def _emitter(events: TextIO, stopping: Stopping) -> Emit:
    lock = threading.Lock()

    def emit(event: Mapping[str, Any]) -> None:
        try:
            with lock:
                events.write(json.dumps(event, default=str) + "\n")
        except (BrokenPipeError, ValueError):
            stopping.asked = True  # whoever listened is gone

    return emit


class _Told(logging.Handler):
    """Warnings become events."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit({"event": "notice", "text": self.format(record)})


def _work(assignment: Assignment, stopping: Stopping, emit: Emit) -> str:
    reached("the worker is there", assignment.began)
    spec = load_spec(assignment.study)
    context = Context(
        device=assignment.device,
        data=assignment.data,
        threads=assignment.threads,
        stop=stopping,
        workers=assignment.workers,
    )
    try:
        trainer = spec.prepare(context)
    except HpoError:
        raise
    except Exception as error:  # the user's code: told as a fault of it, with the way there for who asks
        log.debug("prepare raised", exc_info=True)
        raise UserError(f"prepare of study {spec.name!r} raises {type(error).__name__}: {error}") from error
    made: object = trainer
    if not callable(getattr(made, "train", None)):
        raise UserError(
            f"prepare of study {spec.name!r} must return a trainer, an object with `train`, got {made!r:.80}"
        )
    if spec.reuse_epochs and not getattr(made, "continues_past_epochs", False):
        raise UserError(
            f"study {spec.name!r}: reuse_epochs needs a trainer whose epochs do not depend on how many there will be, "
            "and which says so: `continues_past_epochs = True`"
        )
    if assignment.first:
        check_params(spec, trainer)
    emit({"event": "prepared"})
    reached("the trainer is prepared", assignment.began)
    if sys.stdin.readline().strip() != "go":  # the launcher has opened the stores by then, or is gone
        return "not started"
    threading.Thread(target=_watch_input, args=(stopping,), name="input", daemon=True).start()
    store = open_store(assignment.storage)
    folder = Path(assignment.workdir) / spec.name
    leases = Leases(store.engine, Path(assignment.workdir) / ".owners")
    with store.lock():
        opened = open_study(spec, store, leases, trainer, folder, Path(assignment.outbox), assignment.n_trials)
    emit({"event": "opened", "study_id": opened.identity.study_id, "n_trials": opened.n_trials})
    reached("the study is open", assignment.began)
    if assignment.first:
        preflight(spec, opened, trainer, folder, emit)
        reached("what it needs is estimated", assignment.began)
    stopping.first = lambda: reached("the first step of training", assignment.began)
    records = Records(spec, store, opened.study, leases, opened.outbox, opened.identity, folder)
    owner = become_owner(leases.owners, assignment.owner)
    try:
        place = Workplace(records, make_pruner(spec), trainer, stopping, emit)
        return search(place, make_scheduler(spec), owner, opened.n_trials)
    finally:
        owner.leave()


def _watch_input(stopping: Stopping) -> None:
    while sys.stdin.readline():
        pass
    stopping.asked = True


if __name__ == "__main__":
    try:
        code = main()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    sys.exit(code)
