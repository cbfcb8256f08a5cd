"""Opens the Optuna store so that it is safe under many processes.

Plain Optuna on SQLite runs queued trials twice: it relies on `SELECT … FOR UPDATE`, which SQLite lacks (optuna#4002,
#4621). Here every transaction takes the write lock at once, the schema is made in a file that is renamed into place,
and whatever asks, claims or counts does so under one file lock.
"""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from hpo.errors import DiskFullError, UserError, disk_is_full

DEFAULT_URL = "sqlite:///hpo.db"
LOCK_SECONDS = 120.0
"""How long a process waits for the store's lock; it is held for the fraction of a second that an ask takes."""

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "afpfs", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p"}


@dataclass(frozen=True, slots=True)
class Store:
    """An open Optuna store.

    Attributes:
        url: what Optuna's own tools take.
        storage: Optuna's, to be given to `optuna.load_study`.
        engine: SQLAlchemy's, for the tables that lie beside Optuna's.
        lock_path: the file whose lock orders asking, claiming and counting.
    """

    url: str
    storage: RDBStorage
    engine: Engine
    lock_path: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store's lock: whoever asks, claims or counts does it alone. Dies with its process.

        Raises:
            HpoError: another process has held it for two minutes.
        """
        try:
            with FileLock(self.lock_path, timeout=LOCK_SECONDS, poll_interval=0.01):
                yield
        except Timeout:
            raise UserError(
                f"{self.lock_path}: held by another process for {LOCK_SECONDS:.0f} s; is it stopped?"
            ) from None


def open_store(url: str = DEFAULT_URL) -> Store:
    """Open the store, and make it where it is not there yet; safe when many processes do so at once.

    Raises:
        UserError: the URL is no SQLite one, the file is on a network file system, damaged, or of another Optuna.
        DiskFullError: no room to make it.
    """
    path = sqlite_path(url)
    refuse_network(path)
    try:
        if not path.parent.is_dir():
            raise UserError(f"--storage {masked(url)!r}: the folder {path.parent} is not there")
        make_once(path, _make_schema)
        storage = RDBStorage(_optuna_url(path), engine_kwargs={"connect_args": {"timeout": 60.0}})
    except OSError as error:
        if disk_is_full(error):
            raise DiskFullError(f"{path}: no room for the study's store") from None
        raise UserError(f"{path}: {error.strerror or error}") from None
    except RuntimeError as error:  # Optuna says here that the schema is another version's
        raise UserError(
            f"{path}: made by another version of Optuna; upgrade it with "
            f"`optuna storage upgrade --storage sqlite:///{path}` ({str(error).splitlines()[0]})"
        ) from None
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise UserError(f"{path}: not a usable SQLite database ({_first_line(error)})") from None
    engine: Engine = storage.engine
    begin_immediate(engine)
    storage.scoped_session.remove()
    engine.dispose()
    return Store(f"sqlite:///{path}", storage, engine, path.with_name(f"{path.name}.lock"))


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL names, absolute.

    Raises:
        UserError: another database, or no file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UserError(f"--storage {masked(url)!r} is no URL, need sqlite:///FILE (such as {DEFAULT_URL})") from None
    if parsed.get_backend_name() != "sqlite":
        raise UserError(f"--storage {masked(url)!r}: {parsed.get_backend_name()} is not supported, need sqlite:///FILE")
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise UserError(f"--storage {masked(url)!r} names no file, need sqlite:///FILE (such as {DEFAULT_URL})")
    return Path(parsed.database).absolute()


def masked(url: str) -> str:
    """The URL without its password, whether or not it can be parsed."""
    try:
        parsed: URL = make_url(url)
    except (ArgumentError, ValueError):
        head, at, tail = url.rpartition("@")
        return f"{head.split('://')[0]}://***@{tail}" if at else url
    return parsed.render_as_string(hide_password=True)


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
    """Make a file by `make(temporary)` and rename it into place, once, however many processes ask for it at once."""
    if path.exists():
        return
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_SECONDS):
        if path.exists():
            return
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            make(folder / path.name)
            descriptor = os.open(folder / path.name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            (folder / path.name).replace(path)
        finally:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


def _optuna_url(path: Path) -> str:
    """The file's URL as Optuna wants it: it fills in braces, so that those of a folder's name must be doubled."""
    return f"sqlite:///{path}".replace("{", "{{").replace("}", "}}")


def _make_schema(path: Path) -> None:
    storage = RDBStorage(_optuna_url(path))
    storage.scoped_session.remove()
    storage.engine.dispose()


def sqlite_engine(path: Path) -> Engine:
    """An engine on a SQLite file of ours, with the settings of the store."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60.0})
    begin_immediate(engine)
    return engine


def begin_immediate(engine: Engine) -> None:
    """Let each transaction take the write lock when it begins, wait for it, and reach the disk when it commits.

    The journal is the classic one, not WAL: SQLite before 3.44.6 can corrupt a WAL when it is reset.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def existing_store(url: str = DEFAULT_URL) -> Store:
    """Open a store that must be there.

    Raises:
        UserError: it is not, or can't be opened.
    """
    path = sqlite_path(url)
    if not path.exists():
        raise UserError(f"{path}: there is no such store; `python -m hpo.run` makes one (or give --storage)")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return open_store(url)


def study_names(store: Store) -> list[str]:
    """Names of all studies of a store."""
    return sorted(optuna.get_all_study_names(store.storage))


def load_study(store: Store, name: str, **settings: Any) -> optuna.Study:
    """The study of this name.

    Raises:
        UserError: there is none.
    """
    try:
        return optuna.load_study(study_name=name, storage=store.storage, **settings)
    except KeyError:
        known = ", ".join(study_names(store)) or "none"
        raise UserError(f"no study {name!r} in {store.url}; there are: {known}") from None
    except OperationalError as error:
        raise UserError(f"{store.url}: {_first_line(error)}") from None
