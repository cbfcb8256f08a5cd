"""A worker process: prepares trainers, then works on the study until it is done. Started by `hpo.launch`.

It reads its assignment as a line of JSON from its input, says what happens as lines of JSON on its output, and ends
as on SIGTERM when its input ends: then whoever started it is gone.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from hpo import lanes
from hpo.errors import DiskFullError, HpoError, UserError, disk_is_full, room
from hpo.leases import Leases, Stopping, become_owner
from hpo.loading import load_spec
from hpo.mirror import open_mirror
from hpo.names import CONFIRMS
from hpo.objective import Emit, Workplace
from hpo.options import leave, tell_faults
from hpo.outbox import open_outbox
from hpo.plan import less_kept, plan_from_json, sibling, trials_less_kept
from hpo.preflight import candidates_of, is_work_left, preflight
from hpo.prepared import prepared
from hpo.records import Records
from hpo.redaction import Redacting, redacted
from hpo.resume import OpenStudy, check_params, description_of, open_study, refuse, trained_otherwise
from hpo.schedulers.named import make_scheduler
from hpo.schedulers.proposals import make_pruner
from hpo.search import search
from hpo.spec import Context, StudySpec, Trainer
from hpo.stages import reached
from hpo.storage import STORE_ERRORS, Store, damage, first_line, load_study, open_store, quiet_optuna, read_trials
from hpo.urls import is_sqlite, sqlite_path

TERMINALS = (signal.SIGINT, signal.SIGHUP)
"""Signals of a terminal: the launcher gets them too, and says SIGTERM."""
STOPPED = 143
PATIENCE_SECONDS = 600.0

log = logging.getLogger("hpo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a worker is started with.

    Attributes:
        study: as `--study` had it.
        plan: of a confirmation of that study, as JSON; None for the study itself.
        first: whether this worker speaks for all: it checks, estimates and warns.
        owner: the worker's name as an owner of leases.
        workdir: the folder of all studies' trials.
        mirror: a URL to which the trials' folders are copied, or None.
        outbox: the folder of outboxes.
        workers: how many share this worker's device; on a CPU, this machine.
        lanes: how many trials each runs at a time; None where the first is to find out what is fastest.
        n_trials: the budget that the command line sets anew, or None.
        keeps: whether a part of the budget is kept for a confirmation.
        began: when the command was started, in seconds since 1970.
    """

    study: str
    plan: str | None
    first: bool
    owner: str
    storage: str
    data: str | None
    device: str | None
    threads: int
    workers: int
    lanes: int | None
    n_trials: int | None
    keeps: bool
    workdir: str
    mirror: str | None
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
    all_lanes = [stopping]  # those of further lanes come to it
    signal.signal(signal.SIGTERM, lambda *_: _ask(all_lanes))
    for number in TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINALS)
    emit = _emitter(events, all_lanes)
    assignment = Assignment(**json.loads(sys.stdin.readline()))
    logging.basicConfig(level=logging.WARNING, handlers=[_Told(emit)])
    logging.getLogger("hpo").setLevel(logging.DEBUG if assignment.verbose else logging.WARNING)
    logging.captureWarnings(capture=True)
    tell_faults()
    quiet_optuna()
    try:
        reason = _work(assignment, all_lanes, emit)
    except (OSError, *STORE_ERRORS) as error:
        log.debug("%s", error, exc_info=True)
        if disk_is_full(error):
            emit({"event": "error", "text": _full(error, assignment)})
            return DiskFullError.exit_code
        text = first_line(error)
        if (damaged := damage(error)) is not None:
            emit({"event": "error", "text": damaged})
            return UserError.exit_code
        if isinstance(error, OSError):  # a folder that can't be written, and the like: nothing that goes away
            emit({"event": "error", "text": f"{error.filename or assignment.workdir}: {error.strerror or text}"})
            return UserError.exit_code
        emit({"event": "notice", "text": f"the store can't be used now ({text}); the worker starts again"})
        return HpoError.exit_code
    except HpoError as error:
        log.debug("%s", error, exc_info=True)
        emit({"event": "error", "text": str(error)})
        return error.exit_code
    emit({"event": "done", "reason": reason})
    return STOPPED if stopping.asked else 0


def _full(error: BaseException, assignment: Assignment) -> str:
    """What is said of a full disk, in a line: where, how much is free, and what to do.

    Who does not say which file it was is one of those here: the stores, the outbox, the trials' folder.
    """
    places = [sqlite_path(assignment.storage)] if is_sqlite(assignment.storage) else []
    places = [path.absolute() for path in (*places, Path(assignment.outbox), Path(assignment.workdir))]
    if (named := getattr(error, "filename", None)) is not None:
        places = [Path(named).absolute()]
    free = {}
    for place in places:
        with contextlib.suppress(OSError):
            free[place] = shutil.disk_usage(place.parent).free
    fullest = min(free, key=lambda place: free[place], default=places[0])
    return f"{fullest}: the disk is full ({first_line(error)}): {room(fullest)}; make room, the same command goes on"


def _ask(all_lanes: list[Stopping]) -> None:
    for stopping in all_lanes:
        stopping.asked = True


def _emitter(events: TextIO, all_lanes: list[Stopping]) -> Emit:
    lock = threading.Lock()

    def emit(event: Mapping[str, Any]) -> None:
        if "text" in event:
            event = {**event, "text": redacted(event["text"])}
        try:
            with lock:
                events.write(json.dumps(event, default=str) + "\n")
        except (BrokenPipeError, ValueError):
            _ask(all_lanes)  # whoever listened is gone

    return emit


class _Told(logging.Handler):
    """Warnings become events."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self.setFormatter(Redacting("%(message)s"))
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit({"event": "notice", "text": self.format(record)})


def _work(assignment: Assignment, all_lanes: list[Stopping], emit: Emit) -> str:
    reached("the worker is there", assignment.began)
    spec, stopping = _spec_of(assignment), all_lanes[0]
    trainer = _prepared(spec, assignment, stopping, assignment.lanes or 1)
    if assignment.first:
        check_params(spec, trainer)
    emit({"event": "prepared"})
    reached("the trainer is prepared", assignment.began)
    if sys.stdin.readline().strip() != "go":  # the launcher has opened the stores by then, or is gone
        return "not started"
    threading.Thread(target=_watch_input, args=(all_lanes,), name="input", daemon=True).start()
    store = _patient_store(assignment)
    leases = Leases(store.engine, Path(assignment.workdir) / ".owners")
    opened = store.lasting(partial(_opened, spec, assignment, store, leases, trainer))
    if assignment.keeps:
        opened = replace(opened, n_trials=trials_less_kept(opened.n_trials))
    emit({"event": "opened", "study_id": opened.identity.study_id, "n_trials": opened.n_trials})
    reached("the study is open", assignment.began)
    n_lanes = assignment.lanes
    if assignment.first:
        trials = store.lasting(lambda: opened.study.get_trials(deepcopy=False))
        if n_lanes is None and not is_work_left(opened.n_trials, trials):
            n_lanes = 1
        preflight(spec, opened, trials, trainer, Path(assignment.workdir) / spec.name, emit)
        reached("what it needs is estimated", assignment.began)
    n_lanes = n_lanes or _fastest(spec, trainer, emit)
    n_lanes = 1 if stopping.asked else n_lanes
    stopping.first = lambda: reached("the first step of training", assignment.began)
    if n_lanes == 1:
        return _lane(spec, assignment, store, opened, trainer, stopping, emit, assignment.owner)
    del trainer  # it has the whole device for itself
    all_lanes += [Stopping() for _ in range(1, n_lanes)]
    if stopping.asked:  # before the others were there
        _ask(all_lanes)

    def lane(number: int) -> Callable[[], str]:
        def run() -> str:
            trainer = _prepared(spec, assignment, all_lanes[number], n_lanes)
            own = store if number == 0 else _patient_store(assignment)
            said = _of_lane(emit, number)
            name = lanes.owner_of(assignment.owner, number)
            return _lane(spec, assignment, own, opened, trainer, all_lanes[number], said, name, 1 / n_lanes)

        return run

    return lanes.run_lanes([lane(number) for number in range(n_lanes)], lambda: _ask(all_lanes))


def _patient_store(assignment: Assignment) -> Store:
    """The store, whose outages are waited for: what is trained meanwhile is not lost."""
    return open_store(assignment.storage, patience_seconds=PATIENCE_SECONDS)


def _opened(spec: StudySpec, assignment: Assignment, store: Store, leases: Leases, trainer: Trainer) -> OpenStudy:
    folder, outboxes = Path(assignment.workdir) / spec.name, Path(assignment.outbox)
    read_trials(store, spec.name)
    if assignment.plan is not None:  # what is confirmed was searched on the same data, with the same network
        searched = load_spec(assignment.study)
        found = load_study(store, searched.name)  # its declaration was compared before workers were started
        refuse(searched, trained_otherwise(found, description_of(trainer)))
    with store.lock():
        opened = open_study(spec, store, leases, trainer, folder, outboxes, assignment.n_trials)
        if assignment.plan is not None:
            opened.study.set_user_attr(CONFIRMS, plan_from_json(assignment.plan).study_id)
        return opened


def _spec_of(assignment: Assignment) -> StudySpec:
    spec = load_spec(assignment.study)
    if assignment.keeps:
        spec = less_kept(spec)
    return spec if assignment.plan is None else sibling(spec, plan_from_json(assignment.plan))


def _prepared(spec: StudySpec, assignment: Assignment, stopping: Stopping, n_lanes: int) -> Trainer:
    """A trainer for one of so many lanes.

    Raises:
        UserError: the study's `prepare` raises, or gives no trainer.
    """
    context = Context(
        device=assignment.device,
        data=assignment.data,
        threads=max(1, assignment.threads // n_lanes),
        stop=stopping,
        owned=stopping.owned,
        workers=assignment.workers * n_lanes,
    )
    return prepared(spec, context)


def _fastest(spec: StudySpec, trainer: Trainer, emit: Emit) -> int:
    """How many trials at a time use the device best, as the trainer measures it; one where it can't."""
    side_by_side = getattr(trainer, "side_by_side", None)
    if side_by_side is None:
        return 1

    def rates() -> Iterator[tuple[int, float]]:
        try:
            yield from side_by_side(candidates_of(spec))
        except Exception as error:  # what fewer can do, they can still do
            log.debug("side_by_side raised", exc_info=True)
            log.warning("no more trials at a time: side_by_side raises %s: %s", type(error).__name__, error)

    n, gain = lanes.chosen(rates())
    emit({"event": "lanes", "n": n})
    if n > 1:
        text = f"{n} trials at a time, which together train {gain:.1f} times as fast as one (--workers 1 for one)"
        emit({"event": "notice", "text": text})
    return n


def _lane(
    spec: StudySpec,
    assignment: Assignment,
    store: Store,
    opened: OpenStudy,
    trainer: Trainer,
    stopping: Stopping,
    emit: Emit,
    name: str,
    share: float = 1.0,
) -> str:
    """Run one trial after the other; gives why it ended."""
    leases = Leases(store.engine, Path(assignment.workdir) / ".owners")
    outbox = open_outbox(Path(assignment.outbox), opened.identity.study_id)
    study = store.lasting(lambda: load_study(store, spec.name))
    records = Records(spec, store, study, leases, outbox, opened.identity, Path(assignment.workdir) / spec.name)
    owner = become_owner(leases.owners, name)
    try:
        mirror = (
            None
            if assignment.mirror is None
            else open_mirror(assignment.mirror, f"{spec.name}-{opened.identity.study_id[:8]}")
        )
        place = Workplace(records, make_pruner(spec), trainer, stopping, emit, mirror, share)
        return search(place, make_scheduler(spec), owner, opened.n_trials)
    finally:
        with contextlib.suppress(*STORE_ERRORS):  # whoever looks for work sees that it is gone
            leases.leave(owner)


def _of_lane(emit: Emit, number: int) -> Emit:
    return lambda event: emit({**event, "lane": number})


def _watch_input(all_lanes: list[Stopping]) -> None:
    while sys.stdin.readline():
        pass
    _ask(all_lanes)


if __name__ == "__main__":
    try:
        code = main()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    leave(code)
