"""Files that are there whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write(path: Path, fill: Callable[[BinaryIO], object]) -> str:
    """Write what `fill` puts into a stream, so that it is there whole or not at all; gives its sha256 (hex)."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        fill(stream)
    return sha256(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written; flushed to the disk and renamed to it when that has gone well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync(path: Path) -> None:
    """Let a file, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's content, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
