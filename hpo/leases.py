"""Who runs which trial: a small table beside Optuna's, in the same database.

A worker holds a lock on a file of its own for as long as it lives; on its host that tells at once whether it does.
From another host a lease is live while its counter moves: it is renewed every 5 s, and free after 30 s without a
change on the looker's own clock. So no clock of another machine matters, nor a clock that jumps.

A lease's token grows with each owner. A worker that was paused while its trial went to another finds its token gone,
and its late writes are refused.
"""

import hashlib
import logging
import math
import platform
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import Engine

from hpo.background import beside
from hpo.errors import LeaseLostError
from hpo.storage import STORE_ERRORS, first_line

RENEW_SECONDS = 5.0
GRACE_SECONDS = 30.0
SURE_SECONDS = 1.0
"""How long a lease that was just looked at is sure: it takes many times as long to be lost."""
_LOCK_SECONDS = 10.0
LOOKING_SECONDS = 15.0
"""Whoever has not looked for so long has not seen whether a counter moved: the store, or the looker, was away."""

log = logging.getLogger(__name__)

_metadata = sa.MetaData()
_leases = sa.Table(
    "hpo_leases",
    _metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(64), nullable=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("owner_file", sa.String(4096), nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("counter", sa.Integer, nullable=False),
    sa.Column("deaths", sa.Integer, nullable=False),
    sa.Column("deaths_epochs", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A trial's lease as its owner holds it. `token` counts its owners so far, this one included."""

    trial_id: int
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker's lane as others see it: a name, a host, and a file that is locked while it lives."""

    name: str
    host: str
    boot: str
    file: Path
    lock: FileLock


def this_host() -> str:
    """A name for this machine, the same before and after a reboot."""
    return f"{platform.node()}/{_read('/etc/machine-id')}"


def _mark() -> str:
    return hashlib.sha256(this_host().encode()).hexdigest()[:8]


def this_boot() -> str:
    """A name for this machine's time since it booted; empty where the system gives none."""
    return _read("/proc/sys/kernel/random/boot_id")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def become_owner(folder: Path, name: str | None = None) -> Owner:
    """Become a worker that can own trials: make and lock a file in `folder`, named `name` or by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    name = name or uuid.uuid4().hex
    file = (folder / f"{_mark()}-{name}.owner").absolute()
    lock = FileLock(file, fallback_to_soft=False)
    lock.acquire(timeout=_LOCK_SECONDS)  # somebody may be looking whether it is locked
    return Owner(name, this_host(), this_boot(), file, lock)


@dataclass(slots=True)
class Leases:
    """The table of leases. What decides (`claim`, `is_free`) is called under the store's lock.

    Args:
        engine: of the Optuna store.
        owners: this working folder's place for owner files: where one is looked for if the folder was moved.
        clock: seconds on a monotonic clock.
    """

    engine: Engine
    owners: Path
    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[tuple[int, int], float]] = field(default_factory=dict)
    _looked: float = -math.inf

    def create_table(self) -> None:
        """Make the table where it is missing."""
        _metadata.create_all(self.engine)

    def claim(self, trial_id: int, owner: Owner) -> Lease:
        """Make `owner` the owner of a trial."""
        values = {"owner": owner.name, "host": owner.host, "boot": owner.boot, "owner_file": str(owner.file)}
        mine = _leases.c.trial_id == trial_id
        with self.engine.begin() as connection:
            next_one = {"token": _leases.c.token + 1, **values}
            token = connection.scalar(_leases.update().where(mine).values(next_one).returning(_leases.c.token))
            if token is None:
                fresh = {"token": 1, "counter": 0, "deaths": 0, "deaths_epochs": -1}
                connection.execute(_leases.insert().values(trial_id=trial_id, **values, **fresh))
            return Lease(trial_id, owner.name, token or 1)

    def renew(self, lease: Lease) -> bool:
        """Move the counter; false where the lease has another owner by now."""
        with self.engine.begin() as connection:
            changed = connection.execute(_leases.update().where(*_is(lease)).values(counter=_leases.c.counter + 1))
            return changed.rowcount == 1

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is still its owner's."""
        with self.engine.begin() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(_leases).where(*_is(lease))) == 1

    def release(self, lease: Lease) -> None:
        """Free the trial for any worker; nothing where it has another owner by now."""
        with self.engine.begin() as connection:
            connection.execute(_leases.update().where(*_is(lease)).values(owner=None))

    def release_all(self, owner: Owner) -> None:
        """Free whatever a worker's lane owns."""
        with self.engine.begin() as connection:
            connection.execute(_leases.update().where(_leases.c.owner == owner.name).values(owner=None))

    def leave(self, owner: Owner) -> None:
        """A worker's lane ends: what it owns is free, and then its file goes.

        Not before: while something is owned, the file proves that the owner is gone. Where the store can't be used now
        that is raised, and the file stays, unlocked.
        """
        try:
            self.release_all(owner)
            owner.file.unlink(missing_ok=True)
        finally:
            owner.lock.release()

    def release_owner(self, owner: str) -> list[int]:
        """Free every trial of a worker that is known to be dead, in all its lanes; gives their ids."""
        its = sa.or_(_leases.c.owner == owner, _leases.c.owner.startswith(f"{owner}.", autoescape=True))
        with self.engine.begin() as connection:
            trials = list(connection.scalars(sa.select(_leases.c.trial_id).where(its)))
            connection.execute(_leases.update().where(its).values(owner=None))
        for file in self.owners.glob(f"{_mark()}-{owner}*.owner"):
            remove_unlocked(file)
        return trials

    def drop(self, trial_id: int) -> None:
        """Forget a trial's lease: it has ended."""
        with self.engine.begin() as connection:
            connection.execute(_leases.delete().where(_leases.c.trial_id == trial_id))

    def note_death(self, trial_id: int, epochs: int) -> int:
        """Count a worker that died with this trial after so many epochs; gives the deaths with no new epoch between."""
        mine = _leases.c.trial_id == trial_id
        with self.engine.begin() as connection:
            row = connection.execute(sa.select(_leases.c.deaths, _leases.c.deaths_epochs).where(mine)).one()
            deaths = row.deaths + 1 if epochs == row.deaths_epochs else 1
            connection.execute(_leases.update().where(mine).values(deaths=deaths, deaths_epochs=epochs))
            return int(deaths)

    def is_free(self, trial_id: int) -> bool:
        """Whether a trial has no live owner. From another host that takes `GRACE_SECONDS` of looking to be seen."""
        return trial_id in self.free_among([trial_id])

    def free_among(self, trial_ids: Collection[int]) -> set[int]:
        """Those trials that have no live owner; one look at the table for all of them."""
        rows = {row.trial_id: row for row in self.look()}
        return {i for i in trial_ids if i not in rows or self._is_free(rows[i])}

    def only_counted(self) -> dict[int, tuple[str, int, int]]:
        """Trials whose owner can't be seen from here, each with what changes while that lives: that alone tells."""
        return {row.trial_id: (row.owner, row.token, row.counter) for row in self.look() if self._proof(row) is None}

    def look(self) -> Sequence[sa.Row[Any]]:
        """All leases; counters that stand still are seen to by whoever looks often enough."""
        with self.engine.begin() as connection:
            rows = connection.execute(sa.select(_leases)).all()
        now = self.clock()
        for row in rows:
            stamp = (row.token, row.counter)
            if now - self._looked > LOOKING_SECONDS or self._seen.get(row.trial_id, (None,))[0] != stamp:
                self._seen[row.trial_id] = (stamp, now)
        self._looked = now
        return rows

    def abandoned(self) -> list[int]:
        """Trials whose owner is gone without a word; they are freed by this, and then its file goes."""
        gone = [row for row in self.look() if row.owner is not None and self._is_free(row)]
        for row in gone:
            self.release(Lease(row.trial_id, row.owner, row.token))
        for name in {Path(row.owner_file).name for row in gone}:
            remove_unlocked(self.owners / name)
        return [row.trial_id for row in gone]

    def _is_free(self, row: sa.Row[Any]) -> bool:
        proof = self._proof(row)
        return proof if proof is not None else self.clock() - self._seen[row.trial_id][1] >= GRACE_SECONDS

    def _proof(self, row: sa.Row[Any]) -> bool | None:
        """Whether a trial surely has no live owner; None where that can't be seen from here."""
        if row.owner is None:
            return True
        if _is_of_an_earlier_boot(row):
            return True  # this machine went down since
        if row.boot == this_boot() and (row.boot or row.host == this_host()):
            for place in (Path(row.owner_file), self.owners / Path(row.owner_file).name):
                try:
                    if place.exists():  # else it may lie where only a container, or another job, sees it
                        return not _is_locked(place)
                except OSError:  # another user's
                    continue
        return None


def _is(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _leases.c.trial_id == lease.trial_id,
        _leases.c.owner == lease.owner,
        _leases.c.token == lease.token,
    )


def _is_of_an_earlier_boot(row: sa.Row[Any]) -> bool:
    """Whether this machine has booted since. A host without an id is any of the containers with that name."""
    is_this_machine = row.host == this_host() and not row.host.endswith("/")
    return is_this_machine and bool(row.boot) and row.boot != this_boot()


def _is_locked(file: Path) -> bool:
    lock = _taken(file)
    if lock is not None:
        lock.release()
    return lock is None


def remove_unlocked(file: Path) -> None:
    """Remove a file that nobody has locked; with its lock held, so that nobody comes to have a file that is gone."""
    if file.exists() and (lock := _taken(file)) is not None:
        file.unlink(missing_ok=True)
        lock.release()


def _taken(file: Path) -> FileLock | None:
    """The file's lock, taken; None where somebody else has it."""
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def has_live_owners(folder: Path) -> bool:
    """Whether a process that owns, or may own, trials is at work in a working folder."""
    mine = f"{_mark()}-"  # whether another host's is locked may not be seen from here
    return any(not file.name.startswith(mine) or _is_locked(file) for file in folder.glob("*.owner"))


def dead_owners(folder: Path, needed: Collection[str]) -> list[Path]:
    """Files of workers of this host that are gone, but for those, by their names, that still prove it of a lease."""
    files = sorted(folder.glob(f"{_mark()}-*.owner"))
    return [file for file in files if file.name not in needed and not _is_locked(file)]


@dataclass(slots=True)
class Stopping:
    """What a trainer asks before every batch: true where it is to end.

    Attributes:
        asked: the whole worker is to end.
        lost: only the current trial is: it has another owner by now.
        deadline: on the monotonic clock: when the study's device seconds are used up; None for never.
        first: called when it is asked for the first time: the first training step is about to begin.
        holds: looks whether the current trial is this worker's still.
        sure_at: on the monotonic clock: when it was last seen to be.
        fault: why that could not be seen.
    """

    asked: bool = False
    lost: bool = False
    deadline: float | None = None
    first: Callable[[], None] | None = None
    holds: Callable[[], bool] | None = None
    sure_at: float = -math.inf
    fault: Exception | None = None

    def owned(self) -> bool:
        """Whether the current trial is surely this worker's still; false also ends it."""
        self.fault = None
        try:
            if not self.lost and self.holds is not None and not self.holds():
                self.lost = True
        except STORE_ERRORS as error:  # told to who runs the trial, not to its trainer: the trial is at no fault
            self.fault = error
        return not self.lost and self.fault is None

    def refuse_lost(self) -> None:
        """Let only its owner go on with a trial.

        Raises:
            LeaseLostError: it has another owner by now.
            SQLAlchemyError, HpoError: the store that knows it can't be used.
        """
        if not self.owned():
            if self.fault is not None:
                raise self.fault
            raise LeaseLostError("the trial has another owner")

    def __call__(self) -> bool:
        """Whether to end."""
        if self.first is not None:
            first, self.first = self.first, None
            first()
        return self.asked or self.lost or (self.deadline is not None and time.monotonic() >= self.deadline)


@contextmanager
def kept_alive(leases: Leases, lease: Lease, stopping: Stopping, beat: Callable[[], None]) -> Iterator[None]:
    """Renew a lease from a thread for as long as this lasts; sets `stopping.lost` when another owner has it.

    `beat` is called with every renewal.
    """
    stopping.lost, stopping.fault, stopping.sure_at = False, None, time.monotonic()

    def renew(over: threading.Event) -> None:
        told = False
        while not over.wait(RENEW_SECONDS):
            try:
                now = time.monotonic()
                if leases.renew(lease):
                    stopping.sure_at = now
                else:
                    stopping.lost = True
                leases.look()  # at those of other machines, too: one that is dead is then known when work is sought
                if not stopping.lost:
                    beat()
                told = False
            except STORE_ERRORS as error:  # in five seconds it may be there
                if not told:
                    log.warning("a lease is not renewed for now: %s", first_line(error))
                told = True

    with beside(renew, "lease"):
        yield
