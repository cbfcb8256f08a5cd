"""The error tree. What a user did wrong is one line and exit code 2, never a traceback.

HpoError            1   the service can't go on
├── UserError       2   something to be mended by who called: a spec, a flag, data, a store
│   └── StoreLockedError   a store that is there, and that somebody else holds
├── FailuresError   1   three trials in a row failed
├── DiskFullError  74   no room; nothing kept so far is harmed
├── LeaseLostError  -   another worker owns the trial by now: this one lets go of it in silence
└── LockLostError   -   what was done under the lock is begun again
"""

import errno
import re
import shutil
from pathlib import Path


class HpoError(Exception):
    """The service can't go on; the message says why."""

    exit_code = 1


class UserError(HpoError):
    """What was asked for can't be done as asked: what was found, what is needed, what to do."""

    exit_code = 2


class StoreLockedError(UserError):
    """A store that is there is held by somebody else; it can be used later."""


class FailuresError(HpoError):
    """Three trials in a row failed: the cause is in the study, not in a trial."""


class DiskFullError(HpoError):
    """The disk has no room for what must be written."""

    exit_code = 74


class LeaseLostError(HpoError):
    """The trial has another owner by now."""


class LockLostError(HpoError):
    """The store's lock was lost while it was held: what was done under it is begun again."""


SPARE_BYTES = 200_000_000
"""What is to be free besides the checkpoints that come."""


def room(place: Path) -> str:
    """How much is free where something had no room, and how much should be."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free, need = shutil.disk_usage(there).free / 1e6, SPARE_BYTES / 1e6
    return f"{free:.1f} MB are free, need {need:.0f} MB and room for what is trained"


def in_a_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says, for a message about something of another's making."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]


_FULL = re.compile(
    r"database or disk is full"  # SQLite
    r"|No space left on device|Disk quota exceeded"  # whoever hands on the system's words alone: safetensors
    r"|Not enough free space to write|\d requested and \d+ written"  # numpy
)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that it stems from, says that the disk (or the quota on it) is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if _FULL.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
