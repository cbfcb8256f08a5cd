"""Opens the Optuna store, in SQLite or PostgreSQL, so that it is safe under many processes, and outlasts outages."""

import difflib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from hpo.errors import DiskFullError, LockLostError, StoreLockedError, UserError, disk_is_full, room
from hpo.names import DEFAULT_URL
from hpo.redaction import through_the_root
from hpo.rows import RowStorage
from hpo.sqlite import begin_immediate, file_lock, leave_wal, make_once, reading, refuse_network
from hpo.urls import is_sqlite, masked, sqlite_path

log = logging.getLogger("hpo")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """An open Optuna store.

    Attributes:
        url: what Optuna's own tools take; it may hold a password.
        storage: Optuna's, to be given to `optuna.load_study`; it keeps finished trials in memory, once for all studies.
        engine: SQLAlchemy's, for the tables that lie beside Optuna's.
        lock: held by whoever asks, claims or counts: they do it alone. It dies with its process.
        making: held by whoever makes a study's run in MLflow, which may take its time; so not that lock.
        patience_seconds: how long an outage of the store is waited for.
    """

    url: str
    storage: BaseStorage
    engine: Engine
    lock: Callable[[], AbstractContextManager[None]]
    making: Callable[[], AbstractContextManager[None]]
    patience_seconds: float = 0.0
    _inside: threading.local = field(default_factory=threading.local)

    def __str__(self) -> str:
        """The URL as it may be shown."""
        return masked(self.url)

    def lasting(self, block: Callable[[], T]) -> T:
        """What a block gives, begun again where the store went away in it: so it must be one that may be repeated.

        Within such a block another one is a part of it: the lock may have been lost, and only all of it makes sense.
        """
        if self.patience_seconds <= 0 or getattr(self._inside, "a_block", False):
            return block()
        self._inside.a_block = True
        try:
            return _again(block, self.patience_seconds)
        finally:
            self._inside.a_block = False


def _again(block: Callable[[], T], patience_seconds: float) -> T:
    """What a block gives, begun again for so long while the store is away."""
    return Retrying(
        retry=retry_if_exception(is_away),
        wait=wait_random_exponential(multiplier=0.1, max=3.0),
        stop=stop_after_delay(patience_seconds),
        before_sleep=_say_once,
        reraise=True,
    )(block)


_AWAY = ("08", "57P", "40001", "40P01", "55P03", "25P03", "25006", "53300")
"""SQLSTATEs of PostgreSQL: no connection, shut down or starting, serialisation, deadlock, lock timeout, idle in a
transaction for too long, read-only (a failover), too many connections."""
STORE_ERRORS = (SQLAlchemyError, StorageInternalError, LockLostError, StoreLockedError)
"""What a store raises that can't be used."""


def damage(error: BaseException) -> str | None:
    """What to tell of an error that says that a SQLite file is damaged; None for any other."""
    text = first_line(error)
    if "malformed" not in text and "not a database" not in text:
        return None
    return f"the store is damaged ({text}): put a copy in its place, or try `sqlite3 FILE .recover`"


def is_away(error: BaseException) -> bool:
    """Whether an error says that a store can't be reached or used now, and not that something is wrong with it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LockLostError | StoreLockedError) or (isinstance(cause, DBAPIError) and _is_outage(cause)):
            return not disk_is_full(error)
        cause = cause.__cause__ or cause.__context__
    return False


def _is_outage(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return "locked" in str(error.orig) or "busy" in str(error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # the server could not say so any more
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return str(state).startswith(_AWAY)


def _say_once(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    # A restart of the server alone is over by then; for a lock it has been waited long when it is told the first time.
    if error is not None and state.attempt_number == (1 if isinstance(error, StoreLockedError) else 5):
        log.warning("the store can't be used now (%s); it is waited for", first_line(error))


_POOL = {"max_overflow": -1}
"""A lane takes up to three connections: one that found the pool at SQLAlchemy's limit of fifteen would fail."""


def open_store(url: str = DEFAULT_URL, *, patience_seconds: float = 0.0) -> Store:
    """Open the store, and make it where it is not there yet; safe when many processes do so at once.

    Args:
        url: of SQLite or PostgreSQL.
        patience_seconds: how long an outage of it is waited for, from now on.

    Raises:
        UserError: the URL is none, the file is on a network file system, damaged, or of another Optuna; the server is
            not reached.
        DiskFullError: no room to make it.
    """
    if is_sqlite(url):
        return _open_sqlite(sqlite_path(url), patience_seconds)
    return _open_postgres(url, patience_seconds)


def _open_sqlite(path: Path, patience_seconds: float) -> Store:
    refuse_network(path)
    try:
        if not path.parent.is_dir():
            raise UserError(f"--storage 'sqlite:///{path}': the folder {path.parent} is not there")
        make_once(path, _make_schema)
        if path.stat().st_size == 0:  # SQLite takes it for a store that holds nothing yet
            raise UserError(f"{path}: an empty file, and no store; put a copy in its place, or remove it to begin anew")
        leave_wal(path)
        storage = RowStorage(_optuna_url(path), engine_kwargs={"connect_args": {"timeout": 60.0}, **_POOL})
    except OSError as error:
        if disk_is_full(error):
            raise DiskFullError(f"{path}: no room for the study's store: {room(path)}") from None
        raise UserError(f"{path}: {error.strerror or error}") from None
    except RuntimeError as error:  # Optuna says here that the schema is another version's
        raise _of_another_version(f"sqlite:///{path}", error) from None
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise UserError(f"{path}: not a usable SQLite database ({first_line(error)})") from None
    engine: Engine = storage.engine
    begin_immediate(engine)
    storage.scoped_session.remove()
    engine.dispose()
    file, of_process = path.with_name(f"{path.name}.lock"), threading.Lock()

    @contextmanager
    def lock() -> Iterator[None]:
        with of_process, file_lock(file):  # a file's lock is polled for: by one thread of the process, not by all
            yield

    making = partial(file_lock, path.with_name(f"{path.name}.making.lock"))
    return Store(f"sqlite:///{path}", get_storage(storage), engine, lock, making, patience_seconds)


def _open_postgres(given: str, patience_seconds: float) -> Store:
    from hpo.postgres import CONNECT, AdvisoryLock, making, with_driver

    parsed = with_driver(make_url(given))
    url, shown = parsed.render_as_string(hide_password=False), masked(given)
    logging.getLogger("optuna.storages").setLevel(logging.ERROR)  # what it warns of in an outage is waited for here
    settings: dict[str, Any] = {"pool_pre_ping": True, "connect_args": CONNECT, **_POOL}
    maker = sqlalchemy.create_engine(parsed, **settings)

    def opened() -> RowStorage:
        with AdvisoryLock(maker).held():  # Optuna's own making of its tables fails where two do it at once
            return RowStorage(url.replace("{", "{{").replace("}", "}}"), engine_kwargs=settings)

    try:
        storage = _again(opened, patience_seconds)
        maker.dispose()
    except RuntimeError as error:
        raise _of_another_version(shown, error) from None
    except SQLAlchemyError as error:
        raise UserError(f"--storage {shown!r}: {first_line(error)}") from None
    storage.scoped_session.remove()
    storage.engine.dispose()
    engine: Engine = storage.engine
    lock = AdvisoryLock(engine).held
    return Store(url, get_storage(storage), engine, lock, partial(making, engine), patience_seconds)


def _of_another_version(url: str, error: RuntimeError) -> UserError:
    return UserError(
        f"{url.removeprefix('sqlite:///')}: made by another version of Optuna; upgrade it with "
        f"`optuna storage upgrade --storage {url}` ({str(error).splitlines()[0]})"
    )


def _optuna_url(path: Path) -> str:
    """The file's URL as Optuna wants it: it fills in braces, so that those of a folder's name must be doubled."""
    return f"sqlite:///{path}".replace("{", "{{").replace("}", "}}")


def _make_schema(path: Path) -> None:
    storage = RDBStorage(_optuna_url(path))
    storage.scoped_session.remove()
    storage.engine.dispose()


def first_line(error: BaseException) -> str:
    """What an error of a store says, without SQLAlchemy's own words."""
    said: BaseException = error
    cause: BaseException | None = error
    while cause is not None:
        said = getattr(cause, "orig", None) or said
        cause = cause.__cause__
    return str(said).splitlines()[0] if str(said) else type(said).__name__


def quiet_optuna() -> None:
    """Let Optuna tell of warnings alone, and no secret."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    through_the_root("optuna")


def existing_store(url: str = DEFAULT_URL) -> Store:
    """Open a store that must be there.

    Raises:
        UserError: it is not, or can't be opened.
    """
    if is_sqlite(url) and not (path := sqlite_path(url)).exists():
        raise UserError(f"{path}: there is no such store; `python -m hpo.run` makes one (or give --storage)")
    quiet_optuna()
    return open_store(url)


def study_names(store: Store) -> list[str]:
    """Names of all studies of a store."""
    return sorted(optuna.get_all_study_names(store.storage))


def read_trials(store: Store, name: str) -> None:
    """Read a study's trials into the store's memory, where there is such a study: ten thousand take seconds.

    For whoever takes the lock next: eight that read them under it would wait for each other for minutes.
    """
    with suppress(KeyError), reading():
        optuna.load_study(study_name=name, storage=store.storage).get_trials(deepcopy=False)


def load_study(store: Store, name: str, **settings: Any) -> optuna.Study:
    """The study of this name.

    Raises:
        UserError: there is none; the message has those of close names.
    """
    try:
        return optuna.load_study(study_name=name, storage=store.storage, **settings)
    except KeyError:
        known = study_names(store)
        if not known:
            raise UserError(f"no study {name!r} in {store}; it holds none yet, python -m hpo.run starts one") from None
        if near := difflib.get_close_matches(name, known, n=3):
            raise UserError(f"no study {name!r} in {store}; did you mean {' or '.join(near)}?") from None
        raise UserError(f"no study {name!r} in {store}; there are: {', '.join(known)}") from None
    except OperationalError as error:
        raise UserError(f"{store}: {first_line(error)}") from None
