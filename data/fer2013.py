"""FER2013, in every form it comes in, as `Faces`.

    load(Path("fer2013.csv"), split="paper")

The first time a source is read whole, row by row, and packed into the cache; from then on the cache is mapped.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data import archives, cache, image_folder
from data.errors import DataError
from data.faces import EMOTIONS, USAGES, Faces, Split, drop_leaks, image_digests
from data.faults import blank_rows, duplicate_faults
from data.rows import Chunk, read_csv
from data.tables import read_npz, read_parquet

N_ROWS = {"Training": 28_709, "PublicTest": 3_589, "PrivateTest": 3_589}
PAPER_TRAIN_ROWS = 24_000
"""Rows of Training that the paper trains on, of 28,709."""
_FOLDER_SEED = 2013

log = logging.getLogger(__name__)


def locate(path: str | Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the data are: `path`, else `FER2013_DIR`, else `./datasets`.

    Raises:
        DataError: nothing is there; the message names the ways to get the data.
    """
    place = Path(path) if path else Path(environ.get("FER2013_DIR") or "datasets")
    if not place.exists():
        raise DataError(
            f"{place}: no such file or folder. Ways to get them: `python -m data.prepare --download` (needs a Kaggle "
            "account), or a file of your own with `--data PATH` (or FER2013_DIR=FOLDER, or in ./datasets), "
            "or drawn faces with `--study demo`"
        )
    return place


def load(
    path: Path,
    *,
    split: Literal["paper", "official"] = "paper",
    without_leaks: bool = False,
    cache_folder: Path | None = None,
) -> Faces:
    """Open FER2013 at `path`: a csv, parquet or npz, one of them packed, or a folder of images or of such files.

    Args:
        path: file or folder.
        split: `paper` (the first 24,000 Training rows train, the others validate, PrivateTest tests) or `official`
            (Training, PublicTest, PrivateTest).
        without_leaks: drop from validation and test every image that training also holds.
        cache_folder: where packed data are kept; the user's cache folder by default.

    Raises:
        DataError: the data can't be used, or have no such split.
    """
    rows = open_rows(path, cache_folder)
    splits = make_splits(rows, split)
    if without_leaks:
        splits = drop_leaks(splits, image_digests(rows.packed.images))
    return Faces(
        images=rows.packed.images,
        labels=rows.packed.labels,
        splits=splits,
        class_names=EMOTIONS,
        digest=rows.packed.digest,
        name="fer2013",
        source=str(path),
        split_name=f"{split}-without-leaks" if without_leaks else split,
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """All of a source, unsplit. `ordered` where the rows have an order of their own, as a file's have."""

    packed: cache.Packed
    ordered: bool


def open_rows(path: Path, cache_folder: Path | None = None) -> Rows:
    """All rows at `path`, in their own order.

    Raises:
        DataError: the data can't be used.
    """
    folder = cache.cache_folder() if cache_folder is None else cache_folder
    if path.is_dir() and image_folder.is_image_folder(path):
        files = image_folder.listing(path)
        digest = image_folder.digest(path, files)
        return Rows(_packed(str(path), folder, digest, image_folder.read_images(path, files)), ordered=False)
    source = archives.find(path)
    outer = path if path.is_file() else path / Path(source.label).relative_to(path).parts[0]
    # One archive may hold several data sets: the digest names the one that is read.
    inner = source.label.removeprefix(str(outer))
    digest = hashlib.sha256(f"{cache.file_digest(outer, folder)}{inner}".encode()).hexdigest()
    return Rows(_packed(source.label, folder, digest, _read(source, outer)), ordered=True)


def _packed(label: str, folder: Path, digest: str, chunks: Iterator[Chunk]) -> cache.Packed:
    packed = cache.open_packed(folder, digest)
    if packed is not None:
        return packed
    packed = cache.pack(folder, digest, _with_bar(f"reading {label}", chunks), partial(_check, label))
    _warn(label, packed)
    return packed


def _read(source: archives.DataFile, outer: Path) -> Iterator[Chunk]:
    before = outer.stat()
    read = {"csv": read_csv, "npz": read_npz, "parquet": read_parquet}[source.kind]
    with source.open() as stream:
        yield from read(stream, source.label)
    after = outer.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{outer}: changed while it was read; run again when it is complete")


def _check(path: str, labels: NDArray[np.uint8], usage: NDArray[np.uint8]) -> None:
    """What must hold for the whole before it is kept."""
    absent = [name for label, name in enumerate(EMOTIONS) if not (labels == label).any()]
    if absent:
        raise DataError(f"{path}: no image of class {', '.join(absent)}, need all of {', '.join(EMOTIONS)}")
    counts = np.bincount(usage, minlength=len(USAGES)).tolist()
    found = {name: n for name, n in zip(USAGES, counts, strict=True) if n}
    if any(n != N_ROWS[name] for name, n in found.items()):
        log.warning("%s: found %s rows, the published file has %s", path, found, N_ROWS)


def _warn(path: str, packed: cache.Packed) -> None:
    """Say, once a data set, what a result on it may owe to: copies, some of which are in two splits, and blanks."""
    n_copies = duplicate_faults(image_digests(packed.images), packed.labels).surplus
    n_blank = len(blank_rows(packed.images))
    if n_copies or n_blank:
        log.warning("%s: %d images are exact copies of others, and %d are blank", path, n_copies, n_blank)


def make_splits(rows: Rows, split: str) -> dict[Split, NDArray[np.int64]]:
    """Indices of train, validation and, where there is one, test, as `load` describes.

    Raises:
        DataError: no such split, or nothing to train, validate or test on.
    """
    packed = rows.packed
    training, public, private = (np.flatnonzero(packed.usage == code) for code in range(len(USAGES)))
    splits: dict[Split, NDArray[np.int64]]
    if split == "official":
        if not len(public):
            raise DataError("split 'official' needs rows with Usage PublicTest, found none; use split 'paper'")
        splits = {"train": training, "validation": public}
    elif split == "paper":
        share = PAPER_TRAIN_ROWS / N_ROWS["Training"]
        if rows.ordered:
            n_train = round(len(training) * share)
            splits = {"train": training[:n_train], "validation": training[n_train:]}
        else:
            log.warning("image folders have no row order: 'paper' is a split by a seeded hash of the content, by class")
            training = training[image_folder.content_order(packed.images[training], _FOLDER_SEED)]
            chosen = image_folder.stratified(packed.labels[training], share)
            splits = {"train": training[chosen], "validation": training[~chosen]}
    else:
        raise DataError(f"unknown split {split!r}, need paper or official")
    if len(private):
        splits["test"] = private
    for name, indices in splits.items():
        if not len(indices):
            raise DataError(f"split {split!r} leaves no image for {name}; the data set is too small")
    return splits


def _with_bar(description: str, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, with a progress bar on the error output."""
    from rich.console import Console  # only a first opening needs it
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=sum(N_ROWS.values()))
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk.labels))
