"""The packed form of a data set on disk: three .npy files and their checksums, in a folder named by its source.

It is made in a folder beside its place and renamed, under a lock: a reader sees the whole of it or nothing, and of
eight processes that open one source at once, one converts it.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from data.errors import DataError
from data.files import fsync, sha256, write_whole
from data.rows import Chunk

_FORMAT = 1
_ARRAYS = ("images", "labels", "usage")

Check = Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of a data set as mapped from the cache: images uint8 [N, S, S], labels uint8 [N], usage uint8 [N].

    `digest` is sha256 (hex) of these arrays: the same rows have the same one, whatever form they were read from.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    usage: NDArray[np.uint8]
    digest: str


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where packed data lie: `HPO_CACHE_DIR`, or else the user's cache folder."""
    return Path(environ.get("HPO_CACHE_DIR") or platformdirs.user_cache_dir("fer-hpo", appauthor=False))


def file_digest(path: Path, cache: Path) -> str:
    """sha256 (hex) of a file; that of a file whose path, size, time and inode have not changed is remembered."""
    path = path.resolve()
    note = cache / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    facts = _facts(path)
    try:
        remembered = json.loads(note.read_text())
        if remembered["facts"] == facts:
            return str(remembered["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged: read the file
    digest = sha256(path)
    if _facts(path) != facts:
        raise DataError(f"{path}: changed while it was read; run again when it is complete")
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({"facts": facts, "digest": digest}).encode())
    return digest


def _facts(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ino]


def open_packed(cache: Path, digest: str) -> Packed | None:
    """Map the packed form of the source with this digest; None where it is not there, or damaged."""
    folder = cache / "faces" / digest[:32]
    try:
        sums = json.loads((folder / "packed.json").read_text())
        if sums["format"] != _FORMAT or sums["digest"] != digest:
            return None
        for name in _ARRAYS:
            if sha256(folder / f"{name}.npy") != sums[name]:
                raise ValueError(name)
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels, usage = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("labels", "usage"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: the packed data are damaged; they are made again", folder)
        return None
    content = hashlib.sha256("".join(sums[name] for name in _ARRAYS).encode()).hexdigest()
    return Packed(images, labels, usage, content)


def pack(cache: Path, digest: str, chunks: Iterable[Chunk], check: Check) -> Packed:
    """The packed form of a source: mapped where it is there, else made from its chunks.

    Args:
        cache: the cache's folder.
        digest: of the source.
        chunks: its rows; consumed only where they are needed, one at a time.
        check: called with all labels and usages before anything is kept; raises `DataError`.
    """
    (cache / "faces").mkdir(parents=True, exist_ok=True)
    target = cache / "faces" / digest[:32]
    with FileLock(cache / "faces" / f"{digest[:32]}.lock"):
        packed = open_packed(cache, digest)
        if packed is not None:
            return packed
        building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _write(building, digest, chunks, check)
            shutil.rmtree(target, ignore_errors=True)
            building.rename(target)
            fsync(target.parent)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    packed = open_packed(cache, digest)
    if packed is None:
        raise DataError(f"{target}: what was just written can't be read back: the disk is failing")
    return packed


def _write(folder: Path, digest: str, chunks: Iterable[Chunk], check: Check) -> None:
    labels, usage = [], []
    n_rows, shape = 0, (0, 0)
    with (folder / "images.npy").open("wb") as file:
        _write_header(file, (0, 0, 0))
        for chunk in chunks:
            shape = chunk.pixels.shape[1:]
            file.write(chunk.pixels.tobytes())
            labels.append(chunk.labels)
            usage.append(chunk.usage)
            n_rows += len(chunk.labels)
        file.seek(0)  # numpy pads a header so that the first axis may grow in place
        _write_header(file, (n_rows, *shape))
        file.flush()
        os.fsync(file.fileno())
    check(np.concatenate(labels), np.concatenate(usage))
    sums: dict[str, Any] = {"format": _FORMAT, "digest": digest}
    for name, parts in (("labels", labels), ("usage", usage)):
        np.save(folder / f"{name}.npy", np.concatenate(parts), allow_pickle=False)
    for name in _ARRAYS:
        fsync(folder / f"{name}.npy")
        sums[name] = sha256(folder / f"{name}.npy")
    write_whole(folder / "packed.json", json.dumps(sums).encode())


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
