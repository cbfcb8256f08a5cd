"""FER2013 as parquet (the csv's columns) and as npz (`pixels`, `emotion`, `usage`)."""

import errno
import io
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.archives import refuse_dense
from data.errors import DataError, RowFaults
from data.faces import EMOTIONS, USAGES
from data.rows import Chunk, RowFaultError, parse_label, parse_pixels, parse_usage, pixels_from_numbers

_CHUNK_ROWS = 512


def read_parquet(stream: BinaryIO, path: str) -> Iterator[Chunk]:
    """Read parquet with columns `emotion`, `pixels` (text, or a list of 2304 numbers) and perhaps `Usage`.

    Raises:
        DataError: it is no such parquet, or some rows are bad.
    """
    from pyarrow import parquet  # 30 MB that only parquet needs

    faults, row = RowFaults(path), 0
    try:
        file = parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
        names = {name.strip(): name for name in file.schema_arrow.names}
        for name in ("emotion", "pixels"):
            if name not in names:
                raise DataError(f"{path}: no column {name!r}; found {', '.join(map(repr, names))}")
        columns = [names[name] for name in ("emotion", "pixels", "Usage") if name in names]
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS, columns=columns):
            rows = []
            for values in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                row += 1
                try:
                    rows.append(_parse(*values))
                except RowFaultError as fault:
                    faults.add(row, fault.found, fault.need)
            if rows and not faults.count:
                pixels, labels, usage = zip(*rows, strict=True)
                yield Chunk(np.stack(pixels), np.array(labels, np.uint8), np.array(usage, np.uint8))
    except Exception as error:  # pyarrow's own, and Python's of text that is none
        _raise_if_of_others(error)
        raise DataError(f"{path}: parquet is damaged ({_first_line(error)})") from None
    if row == 0:
        raise DataError(f"{path}: no rows")
    faults.raise_if_any()


def _parse(emotion: object, pixels: object, usage: object = USAGES[0]) -> tuple[NDArray[np.uint8], int, int]:
    values = parse_pixels(pixels) if isinstance(pixels, str) else pixels_from_numbers(pixels)
    return values, parse_label(str(emotion)), parse_usage(str(usage))


def read_npz(stream: BinaryIO, path: str) -> Iterator[Chunk]:
    """Read an npz of `pixels` [N, 48, 48] or [N, 2304], `emotion` [N] in 0..6 and `usage` [N] in 0..2.

    Raises:
        DataError: an array is missing, holds objects (pickle is never loaded), or some rows are bad.
    """
    pixels, emotion, usage = _arrays(stream, path)
    for name, array in (("emotion", emotion), ("usage", usage)):
        if array.dtype.kind not in "iu":
            raise DataError(f"{path}: {name} is of {array.dtype}, need whole numbers")
    if not pixels.ndim or emotion.ndim != 1 or usage.shape != emotion.shape or len(pixels) != len(emotion):
        shapes = f"{pixels.shape}, {emotion.shape}, {usage.shape}"
        raise DataError(f"{path}: found pixels, emotion, usage of shapes {shapes}, need [N, 48, 48], [N], [N]")
    if not len(emotion):
        raise DataError(f"{path}: no rows")
    faults = RowFaults(path)
    for row in np.flatnonzero((emotion < 0) | (emotion >= len(EMOTIONS))).tolist():
        faults.add(row + 1, f"emotion {emotion[row]}", f"0..{len(EMOTIONS) - 1}")
    for row in np.flatnonzero((usage < 0) | (usage >= len(USAGES))).tolist():
        faults.add(row + 1, f"usage {usage[row]}", f"0..{len(USAGES) - 1}")
    faults.raise_if_any()
    for start in range(0, len(emotion), _CHUNK_ROWS):
        block = slice(start, start + _CHUNK_ROWS)
        rows = []
        for offset, values in enumerate(pixels[block]):
            try:
                rows.append(pixels_from_numbers(values))
            except RowFaultError as fault:
                faults.add(start + offset + 1, fault.found, fault.need)
        if not faults.count:
            yield Chunk(np.stack(rows), emotion[block].astype(np.uint8), usage[block].astype(np.uint8))
    faults.raise_if_any()


def _arrays(stream: BinaryIO, path: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The arrays `pixels`, `emotion` and `usage` of an npz, as they are."""
    try:
        whole = stream if stream.seekable() else io.BytesIO(stream.read())
        _bound(whole, path)
        with np.load(whole, allow_pickle=False) as arrays:
            missing = [name for name in ("pixels", "emotion", "usage") if name not in arrays]
            if missing:
                raise DataError(f"{path}: no array {missing[0]!r}; found {', '.join(arrays.files) or 'none'}")
            return arrays["pixels"], arrays["emotion"], arrays["usage"]
    except Exception as error:  # a broken header goes to Python's own tokenizer, one of a huge shape out of memory
        _raise_if_of_others(error)
        raise DataError(f"{path}: npz is damaged or holds objects ({_first_line(error)})") from None


def _raise_if_of_others(error: Exception) -> None:
    """Raise an error that says nothing of the table: one that is told of already, or the disk's."""
    is_disks = isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}
    if is_disks or isinstance(error, DataError):
        raise error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _bound(stream: BinaryIO, path: str) -> None:
    """An npz is a zip, whose arrays are read whole: what they take is known before."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    refuse_dense(path, sum(member.file_size for member in members), sum(member.compress_size for member in members))
    stream.seek(0)
