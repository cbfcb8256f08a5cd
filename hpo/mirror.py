"""Trials' folders at a URL that several machines reach (`s3://bucket/fer`), beside each machine's own.

A trainer works in a local folder. What it keeps there is copied to the URL while it trains, and whoever takes the trial
over on another machine begins with that copy. Nothing waits for it: a copy that is late costs epochs, not results.
"""

import contextlib
import json
import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.background import beside
from hpo.errors import UserError, in_a_line
from hpo.urls import masked
from hpo.whole import write_whole

COPY_SECONDS = 5.0
_MARK = ".copied.json"
"""In both folders: of which owner of the trial the copy is."""

log = logging.getLogger("hpo")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A study's folder at a URL.

    Attributes:
        files: fsspec's file system.
        root: of the study, in it.
    """

    files: Any
    root: str

    def pull(self, number: int, folder: Path, token: int) -> None:
        """Let a trial's local folder be as the copy is, where that is of a later owner than the folder's files.

        Args:
            number: of the trial.
            folder: its own, here.
            token: of the lease that is held now: the copy of an earlier one is wanted.
        """
        theirs = self._token(number)
        if theirs is None or theirs >= token or theirs <= _token_here(folder):
            return
        beside = folder.with_name(f"{folder.name}.pulled")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            self.files.get(f"{self.root}/{number}/", f"{beside}/", recursive=True)
        except Exception as error:  # whatever a store raises: then the trial starts again, which is said
            log.warning("trial %d: its copy at %s can't be read: %s", number, self.root, in_a_line(error))
            shutil.rmtree(beside, ignore_errors=True)
            return
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)

    @contextmanager
    def kept(self, number: int, folder: Path, token: int, lost: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Copy what changes in a trial's folder for as long as this lasts, and once more at its end.

        Args:
            number: of the trial.
            folder: its own.
            token: of its lease.
            lost: whether it has another owner by now, whose copy it is then.
        """
        known: dict[str, tuple[int, int]] = {}
        write_whole(folder / _MARK, json.dumps({"token": token}).encode())

        def copy(over: threading.Event) -> None:
            told = False
            while True:
                last = over.wait(COPY_SECONDS)
                if lost():
                    return
                try:
                    self._copy(number, folder, known)
                    told = False
                except Exception as error:  # whatever a store raises: the next time it may go
                    if not told:
                        log.warning("trial %d: no copy at %s for now: %s", number, self.root, in_a_line(error))
                    told = True
                if last:
                    return

        with beside(copy, "copy"):
            yield

    def let_go(self, number: int) -> None:
        """Let go of the copied checkpoints of a trial that has ended."""
        try:
            self.files.rm(f"{self.root}/{number}/checkpoints", recursive=True)
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever a store raises: it only takes room
            log.debug("trial %d: its copied checkpoints stay: %s", number, in_a_line(error))

    def _copy(self, number: int, folder: Path, known: dict[str, tuple[int, int]]) -> None:
        """Copy what is new, the newest last: a manifest comes after what it names. Then let go of what is gone."""
        found: dict[str, tuple[int, int]] = {}
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                status = path.stat()
                if path.is_file():
                    found[path.relative_to(folder).as_posix()] = (status.st_mtime_ns, status.st_size)
        for name in sorted(found, key=lambda name: found[name]):
            if known.get(name) != found[name]:
                target = f"{self.root}/{number}/{name}"
                self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
                try:
                    self.files.put_file(str(folder / name), target)
                except FileNotFoundError:
                    if (folder / name).exists():
                        raise
                    continue
                known[name] = found[name]
        for name in known.keys() - found.keys():
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(f"{self.root}/{number}/{name}")
            del known[name]

    def _token(self, number: int) -> int | None:
        try:
            return int(json.loads(self.files.cat_file(f"{self.root}/{number}/{_MARK}"))["token"])
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a store raises, or a file that was cut
            log.warning("trial %d: its copy at %s can't be read: %s", number, self.root, in_a_line(error))
            return None


def _token_here(folder: Path) -> int:
    try:
        return int(json.loads((folder / _MARK).read_bytes())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def open_mirror(url: str, study: str) -> Mirror:
    """A study's folder at a URL.

    Args:
        url: of the folder of all studies.
        study: its name with its id: another study of that name has trials of the same numbers.

    Raises:
        UserError: fsspec knows no such kind of URL, a package for it is missing, the place can't be written, or it is
            this process's memory.
    """
    import fsspec

    if url.startswith("memory:"):
        raise UserError(f"--workdir {masked(url)!r} is gone when this process ends, and no other one sees it")
    if url.startswith("file://") and not url.startswith("file:///"):
        raise UserError(f"--workdir {masked(url)!r} is not absolute, need file:///FOLDER")
    try:
        files, root = fsspec.core.url_to_fs(url)
        found = Mirror(files, f"{root.rstrip('/')}/{study}")
        files.makedirs(found.root, exist_ok=True)
        probe = f"{found.root}/.writable-{uuid.uuid4().hex}"
        files.pipe_file(probe, b"")
        files.rm_file(probe)
    except Exception as error:  # whatever a store raises
        raise UserError(f"--workdir {masked(url)!r} can't be used: {in_a_line(error)}") from None
    return found
