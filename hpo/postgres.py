"""A study's store in PostgreSQL: how it is reached, and the lock that orders asking, claiming and counting.

The lock is an advisory one of a session of its own: a transaction held open would make Optuna's own transactions wait.
A session can end without its process (a restart of the server, a cut line), and then the lock is somebody else's: so
every commit under the lock asks, in its own transaction, whether the session still has it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from hpo.errors import LockLostError, UserError

DRIVER = "postgresql+psycopg"
LOCK_KEY = 0x68706F  # "hpo"; advisory locks of a database are its own
MAKING_KEY = LOCK_KEY + 1
LOCK_SECONDS = 120
FROZEN_SECONDS = 30
"""After so long a session that holds the lock, or a transaction, and does nothing is ended: its process is frozen."""

CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "hpo",
}
"""What a connection is made with: one that was cut is known as such within half a minute."""

_TAKE = f"SELECT set_config('idle_session_timeout', '{FROZEN_SECONDS}s', false), pg_advisory_lock({LOCK_KEY}), pg_backend_pid()"  # noqa: E501
_GIVE = f"SELECT pg_advisory_unlock({LOCK_KEY}), set_config('idle_session_timeout', '0', false)"
_HELD = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {LOCK_KEY} AND pid = "  # noqa: S608


@contextmanager
def making(engine: Engine) -> Iterator[None]:
    """Hold the lock of whoever makes a study's run in MLflow: an advisory one of a session of its own.

    Raises:
        sqlalchemy.exc.OperationalError: the server is away, or another has held it for two minutes.
    """
    with engine.connect() as connection:
        session = connection.execution_options(isolation_level="AUTOCOMMIT")
        session.exec_driver_sql(f"SELECT pg_advisory_lock({MAKING_KEY})")
        try:
            yield
        finally:
            session.invalidate()  # the lock ends with the session, whatever has become of that


def with_driver(url: URL) -> URL:
    """The URL with the driver that is used here.

    Raises:
        UserError: it names no database, another driver, or the driver is not installed.
    """
    if url.drivername not in {"postgresql", DRIVER}:
        raise UserError(f"--storage: {url.drivername} is not supported, need {DRIVER}://USER@HOST/DATABASE")
    if "@" in (url.host or ""):
        raise UserError(
            "--storage: an @ in the password must be written as %40, or leave it to PGPASSWORD or ~/.pgpass"
        )
    if not url.database:
        raise UserError(f"--storage names no database, need {DRIVER}://USER@HOST/DATABASE")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise UserError(f"--storage: PostgreSQL needs psycopg ({error}); pip install 'fer-hpo[postgres]'") from None
    return url.set(drivername=DRIVER)


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """The lock of a database, for the threads of a process.

    Args:
        engine: of the database. From now on its commits under the lock are refused once the lock is lost.
    """

    engine: Engine
    _mine: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        @event.listens_for(self.engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'")
                cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
                # The server's own are hours: sessions of a machine that is gone would take their turn at the lock.
                cursor.execute("SET tcp_keepalives_idle = 10")
                cursor.execute("SET tcp_keepalives_interval = 5")
                cursor.execute("SET tcp_keepalives_count = 2")
            connection.commit()

        @event.listens_for(self.engine, "commit")
        def _commits(connection: Connection) -> None:
            pid = getattr(self._mine, "pid", None)
            if pid is not None and connection.exec_driver_sql(f"{_HELD}{pid}").scalar() is None:
                raise LockLostError("the store's lock was lost: its session has ended")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises:
            LockLostError: the session that held it has ended meanwhile, and what was to be committed was not.
            sqlalchemy.exc.OperationalError: the server is away, or another has held it for two minutes.
        """
        with self.engine.connect() as connection:
            session = connection.execution_options(isolation_level="AUTOCOMMIT")
            pid = session.exec_driver_sql(_TAKE).one()[2]
            self._mine.pid = pid
            try:
                yield
            finally:
                self._mine.pid = None
                try:
                    if not session.exec_driver_sql(_GIVE).one()[0]:
                        session.invalidate()  # it is not the session that took it, so that one must end
                except DBAPIError:
                    session.invalidate()  # with its session the lock has ended, too
