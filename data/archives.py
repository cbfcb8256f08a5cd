"""Finds the data file in a file, folder or archive, and reads it inside: nothing is ever extracted to disk."""

import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from data.errors import DataError

MAX_BYTES = 1 << 30
"""Most bytes that an archive may expand to."""
MAX_RATIO = 100
"""Most bytes out for a byte in, once `FREE_BYTES` have come out. Pixels as text expand about 4:1."""
FREE_BYTES = 10_000_000

_ORDER = ("fer2013.csv", "icml_face_data.csv", "fer2013.npz", "train.csv")
_PASSED_OVER = {"test.csv", "example_submission.csv", "sample_submission.csv"}
_COMPRESSED = (".tar.gz", ".tgz", ".gz", ".zip", ".tar")

Opener = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A csv, npz or parquet, wherever it lies."""

    label: str
    kind: str
    rank: tuple[int, int]
    open: Opener


def find(path: Path) -> DataFile:
    """The data file that `path` (a file or a folder, not an image folder) holds.

    Where several lie together: fer2013.csv, icml_face_data.csv, npz, train.csv, then any other; a plain file goes
    before a packed one of the same name; test.csv is passed over.

    Raises:
        DataError: none, two of the same rank, or an archive that is damaged or unsafe.
    """
    if path.is_dir():
        found = [f for p in sorted(path.iterdir()) if p.is_file() for f in _in_file(p)]
    elif path.is_file():
        found = _in_file(path)
    else:
        raise DataError(f"{path}: not found" if not path.exists() else f"{path}: not a regular file")
    return _best(found, str(path))


def _in_file(path: Path) -> list[DataFile]:
    # An archive of another kind beside the data is no reason to refuse them: it is looked into only when it is all.
    name = path.name.lower()
    if name.endswith((".csv", ".npz", ".parquet", *_COMPRESSED)):
        found = _expand(str(path), path.name, lambda: path.open("rb"), outermost=True)
        packed = name.endswith(_COMPRESSED)
        return [replace(f, rank=(f.rank[0], f.rank[1] + packed)) for f in found]
    return []


def _best(found: list[DataFile], where: str) -> DataFile:
    if not found:
        raise DataError(
            f"{where}: no face data found, need fer2013.csv, icml_face_data.csv, train.csv (or one as .gz, .zip, "
            ".tar.gz), parquet, .npz, or a folder with train/<class>/ images"
        )
    found = sorted(found, key=lambda f: f.rank)
    if len(found) > 1 and found[0].rank == found[1].rank:
        raise DataError(f"{where}: ambiguous: {found[0].label} and {found[1].label}; name one of them")
    return found[0]


def _expand(label: str, name: str, opener: Opener, *, outermost: bool = False) -> list[DataFile]:
    """Every data file in `opener`'s bytes, called `name`."""
    name = PurePosixPath(name).name.lower()
    if name in _PASSED_OVER:
        return []
    if name.endswith((".csv", ".npz", ".parquet")):
        kind = name.rpartition(".")[2]
        rank = next((i for i, known in enumerate(_ORDER) if name == known), len(_ORDER))
        rank = _ORDER.index("fer2013.npz") if kind == "npz" else rank
        return [DataFile(label, kind, (rank, 0), opener)]
    if name.endswith((".tar.gz", ".tgz")):
        return _tar_members(label, _gunzipped(label, opener))
    if name.endswith(".tar"):
        return _tar_members(label, opener)
    if name.endswith(".gz"):
        return _expand(label, name.removesuffix(".gz"), _gunzipped(label, opener))
    if name.endswith(".zip") and outermost:
        return _zip_members(label, opener)
    return []


_BROKEN = (
    OSError, EOFError, ValueError, OverflowError, LookupError, RuntimeError,
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip
"""What the standard library raises of archives that are broken: of numbers in them that can't be, too, such as an
offset below zero (OSError, ValueError), a compression or encryption that it can't read (RuntimeError)."""


@contextmanager
def _readable(label: str, what: str) -> Iterator[None]:
    """Every way in which the standard library says that an archive is broken, as one line."""
    try:
        yield
    except EOFError:
        raise DataError(f"{label}: {what} is cut short; download it again") from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise  # the disk's
        cut = isinstance(error, tarfile.ReadError) and "unexpected end" in str(error)
        raise DataError(
            f"{label}: {what} is {'cut short' if cut else f'damaged ({error})'}; download it again"
        ) from None


class _Bounded(io.RawIOBase):
    """A stream out of an archive that ends with `DataError` where that is broken, or expands too much."""

    def __init__(self, label: str, what: str, stream: IO[bytes], consumed: Callable[[], int]) -> None:
        self._label, self._what, self._stream, self._consumed, self._given = label, what, stream, consumed, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:  # who reads an archive within this one counts what it has taken of it
        return self._given

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _readable(self._label, self._what):
            block = self._stream.read(len(buffer))
        self._given += len(block)
        refuse_dense(self._label, self._given, self._consumed())
        buffer[: len(block)] = block
        return len(block)


def refuse_dense(label: str, given: int, consumed: int) -> None:
    """Raises DataError where an archive expands too much: to so many bytes, from so many."""
    if given > MAX_BYTES or (given > FREE_BYTES and given > MAX_RATIO * max(1, consumed)):
        raise DataError(f"{label}: expands too much ({given:,} bytes so far); not read further")


def _gunzipped(label: str, opener: Opener) -> Opener:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with opener() as packed, gzip.GzipFile(fileobj=packed) as plain:
            stream = io.BufferedReader(_Bounded(label, "gzip", cast("IO[bytes]", plain), packed.tell), 1 << 16)
            yield cast("BinaryIO", stream)
            while stream.read(1 << 20):  # to its end: only there does gzip check its sum, and find trailing junk
                pass

    return opened


def _zip_members(label: str, opener: Opener) -> list[DataFile]:
    with _readable(label, "zip"), opener() as packed, zipfile.ZipFile(packed) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    found: list[DataFile] = []
    for info in infos:
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        _refuse_unsafe(label, info.filename, is_link=is_link)
        if info.flag_bits & 1:
            raise DataError(f"{label}: {info.filename} is encrypted; unpack it first")
        found += _expand(f"{label}/{info.filename}", info.filename, _unzipped(label, opener, info))
    return [_best(found, label)] if found else []


def _unzipped(label: str, opener: Opener, info: zipfile.ZipInfo) -> Opener:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            with _readable(label, "zip"):  # not while it is used: what its reader raises is the reader's
                archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(opener())))
                plain = stack.enter_context(archive.open(info.filename))
            bounded = _Bounded(label, "zip", plain, lambda: info.compress_size)
            yield cast("BinaryIO", io.BufferedReader(bounded, 1 << 16))

    return opened


def _tar_members(label: str, opener: Opener) -> list[DataFile]:
    with _readable(label, "tar"), opener() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        members = list(archive)
    found: list[DataFile] = []
    for member in members:
        _refuse_unsafe(label, member.name, is_link=member.issym() or member.islnk())
        if member.isfile():
            found += _expand(f"{label}/{member.name}", member.name, _untarred(label, opener, member.name))
    return [_best(found, label)] if found else []


def _untarred(label: str, opener: Opener, name: str) -> Opener:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            with _readable(label, "tar"):
                archive = stack.enter_context(tarfile.open(fileobj=stack.enter_context(opener()), mode="r|"))
                member = next((member for member in archive if member.name == name), None)
                extracted = None if member is None else archive.extractfile(member)
            if member is None:
                raise DataError(f"{label}: {name} is gone: the archive changed while it was read")
            if extracted is None:
                raise DataError(f"{label}: {name} is not a regular file")
            yield cast("BinaryIO", io.BufferedReader(_Bounded(label, "tar", extracted, extracted.tell), 1 << 16))

    return opened


def _refuse_unsafe(label: str, name: str, *, is_link: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link or not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"{label}: unsafe archive member {name!r}; nothing was read")
