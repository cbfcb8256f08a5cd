"""SQLite files that many processes use: made whole, never on a network file system, each transaction alone.

Plain Optuna on SQLite runs queued trials twice: it relies on `SELECT … FOR UPDATE`, which SQLite lacks (optuna#4002,
#4621). Here every transaction takes the write lock at once, the schema is made in a file that is renamed into place,
and whatever asks, claims or counts does so under one file lock.
"""

import glob
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy import Engine, event

from hpo.errors import StoreLockedError, UserError

log = logging.getLogger("hpo")

LOCK_SECONDS = 120.0
"""How long a process waits for the store's lock; it is held for the fraction of a second that an ask takes."""
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "afpfs", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p"}


def refuse_network(path: Path) -> None:
    """Refuse a SQLite file on a network file system: its locks don't hold there (optuna#820, #4994).

    Raises:
        UserError: it is on one.
    """
    place = os.path.realpath(path)
    mounts = [p for p in psutil.disk_partitions(all=True) if place.startswith(p.mountpoint.rstrip("/") + "/")]
    if not mounts:
        return
    kind = max(mounts, key=lambda p: len(p.mountpoint)).fstype.lower()
    if kind in _NETWORK_FILE_SYSTEMS:
        raise UserError(
            f"{path}: on a network file system ({kind}), where SQLite's locks do not hold; use a local disk"
        )


def make_once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file by `make(temporary)` and rename it into place, once, however many processes ask for it at once.

    Raises:
        StoreLockedError: another process has been at it for two minutes.
        OSError: the folder takes no file.
    """
    if path.exists():
        return
    with file_lock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        making = f".{path.name}.making-"
        for left in path.parent.glob(f"{glob.escape(making)}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=making))
        try:
            make(folder / path.name)
            descriptor = os.open(folder / path.name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            (folder / path.name).replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of this file: it dies with its process.

    Raises:
        StoreLockedError: another process has held it for two minutes.
        OSError: the folder takes no file.
    """
    if not path.exists():
        path.touch()  # FileLock would wait where no file can be made: in /proc, or a working folder that is gone
    try:
        with FileLock(path, timeout=LOCK_SECONDS, poll_interval=0.01):
            yield
    except Timeout:
        raise StoreLockedError(f"{path}: held by another process for {LOCK_SECONDS:.0f} s; is it stopped?") from None


def sqlite_engine(path: Path) -> Engine:
    """An engine on a SQLite file of ours, with the settings of the store."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60.0})
    begin_immediate(engine)
    return engine


_only_reads: ContextVar[bool] = ContextVar("only_reads", default=False)


@contextmanager
def reading() -> Iterator[None]:
    """Let transactions within only read: they go on beside others that do, as long as nobody commits.

    For a long look at much. A write within may fail at once, where somebody else is about to commit.
    """
    token = _only_reads.set(True)
    try:
        yield
    finally:
        _only_reads.reset(token)


def leave_wal(path: Path) -> None:
    """Let a file that somebody has switched to WAL have the classic journal again; not while others are at it.

    SQLite can corrupt a WAL when it is reset, from 3.7.0 to 3.51.2, but for 3.50.7 and 3.44.6.
    """
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection, suppress(sqlite3.Error):
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            return
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = DELETE")
        if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            log.warning(
                "%s is in WAL mode, and others are at it: SQLite %s may damage it", path, sqlite3.sqlite_version
            )


def begin_immediate(engine: Engine) -> None:
    """Let each transaction take the write lock when it begins, wait for it, and reach the disk when it commits."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if _only_reads.get() else "BEGIN IMMEDIATE")
