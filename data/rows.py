"""Strict, streaming reading of FER2013's csv: each row is checked before its bytes are kept.

`int()` and `numpy.fromstring` take `1_0`, `+5`, Arabic digits and `25.7`; here a pixel is one to three ASCII digits.
"""

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError, RowFaults
from data.faces import EMOTIONS, USAGES

SIDE = 48
N_PIXELS = SIDE * SIDE
MAX_LINE = 16_384
"""Longest line that is read, in bytes; the longest legal one has 9,215 of pixels and a few more."""

_NOT_CSV = (
    (b"PK\x03\x04", "starts with PK (a zip archive), not CSV text"),
    (b"\x89PNG", "starts with PNG, not CSV text"),
    (b"PAR1", "starts with PAR1 (parquet), not CSV text"),
    (b"\x1f\x8b", "starts with a gzip header, not CSV text; name it .csv.gz"),
    (b"\xff\xfe", "UTF-16 text; save as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save as UTF-8"),
    (b"version https://git-lfs", "Git LFS pointer; run git lfs pull"),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a data set: pixels uint8 [B, S, S], labels uint8 [B], usage uint8 [B] (indices into `USAGES`)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    usage: NDArray[np.uint8]


class RowFaultError(ValueError):
    """One row can't be used: what was found in it, and what is needed."""

    def __init__(self, found: str, need: str) -> None:
        super().__init__(f"found {found}, need {need}")
        self.found, self.need = found, need


def read_csv(stream: BinaryIO, path: str, chunk_rows: int = 512) -> Iterator[Chunk]:
    """Read a FER2013 csv (columns `emotion`, `pixels` and perhaps `Usage`, in any order) as checked chunks.

    Args:
        stream: the csv's bytes, read once from front to back; never more than a chunk is held.
        path: what messages call it.
        chunk_rows: rows a chunk.

    Raises:
        DataError: it is no such csv, or some rows are bad (told after all have been read).
    """
    reader = csv.reader(_lines(stream, path), strict=True)
    faults = RowFaults(path)
    try:
        columns = _columns(next(reader, []), path)
        chunk: list[tuple[NDArray[np.uint8], int, int]] = []
        row = 0
        for fields in reader:
            if not fields:  # an empty line
                continue
            row += 1
            try:
                chunk.append(_parse(fields, columns))
            except RowFaultError as fault:
                faults.add(row, fault.found, fault.need)
                continue
            if len(chunk) == chunk_rows:
                yield _packed(chunk)
                chunk.clear()
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}: the file is damaged or cut short") from None
    if row == 0:
        raise DataError(f"{path}: header but no rows")
    faults.raise_if_any()
    if chunk:
        yield _packed(chunk)


def parse_pixels(text: str) -> NDArray[np.uint8]:
    """Parse 2304 whole numbers in 0..255, one blank between, to uint8 [48, 48].

    Raises:
        RowFaultError: anything else.
    """
    text = text.strip(" ")
    raw = np.frombuffer(text.encode(), np.uint8)
    blanks = np.flatnonzero(raw == ord(" "))
    digits = raw - np.uint8(ord("0"))  # wraps below "0", so that one comparison finds every other byte
    if len(blanks) != N_PIXELS - 1 or int((digits < 10).sum()) != len(raw) - len(blanks):
        raise _pixel_fault(text.split(" "))
    ends = np.append(blanks, len(raw))
    lengths = np.diff(ends, prepend=-1) - 1
    if lengths.min() < 1 or lengths.max() > 3:
        raise _pixel_fault(text.split(" "))
    values = digits[ends - 1].astype(np.uint16)
    values += np.where(lengths > 1, digits[ends - 2], 0).astype(np.uint16) * 10
    values += np.where(lengths > 2, digits[ends - 3], 0).astype(np.uint16) * 100
    if values.max() > 255:
        raise _pixel_fault(text.split(" "))
    pixels: NDArray[np.uint8] = values.astype(np.uint8).reshape(SIDE, SIDE)
    return pixels


def parse_label(text: str) -> int:
    """Parse one of 0..6.

    Raises:
        RowFaultError: anything else; `3.0` and `happy` are not labels.
    """
    text = text.strip(" ")
    if len(text) == 1 and "0" <= text < str(len(EMOTIONS)):
        return int(text)
    raise RowFaultError(f"emotion {_short(text)}", f"0..{len(EMOTIONS) - 1}")


def parse_usage(text: str) -> int:
    """Parse one of `USAGES` to its code 0..2.

    Raises:
        RowFaultError: anything else.
    """
    text = text.strip(" ")
    if text in USAGES:
        return USAGES.index(text)
    raise RowFaultError(f"Usage {_short(text)}", f"one of {', '.join(USAGES)}")


def pixels_from_numbers(values: object) -> NDArray[np.uint8]:
    """2304 whole numbers in 0..255, as parquet and npz hold them, to uint8 [48, 48].

    Raises:
        RowFaultError: another count, or a value that is not whole or out of range.
    """
    numbers = np.asarray(values).ravel()
    if numbers.dtype == np.uint8 and numbers.size == N_PIXELS:
        return numbers.reshape(SIDE, SIDE)
    if numbers.dtype.kind not in "iu" or numbers.size != N_PIXELS or numbers.min() < 0 or numbers.max() > 255:
        raise _pixel_fault([str(value) for value in numbers.tolist()])
    return numbers.astype(np.uint8).reshape(SIDE, SIDE)


def _pixel_fault(tokens: Sequence[str]) -> RowFaultError:
    for position, token in enumerate(tokens, start=1):
        if re.fullmatch(r"-?[0-9]+", token) is None:
            return RowFaultError(f"pixel {position} = {_short(token)}", "a whole number in 0..255")
        if len(token) > 3 or not 0 <= int(token) <= 255:
            return RowFaultError(f"pixel {position} = {token[:20]}", "0..255")
    return RowFaultError(f"{len(tokens)} pixels", f"{N_PIXELS}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "…")


def _lines(stream: BinaryIO, path: str) -> Iterator[str]:
    """The text's lines, each bounded before it is read whole."""
    offset, number = 0, 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            _refuse_other_formats(line, path)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            raise DataError(f"{path}: NUL byte at offset {offset + line.index(0)}: the file is damaged")
        if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
            raise DataError(f"{path}: line {number}: unsupported line ends (a lone CR); save with LF or CRLF")
        if len(line) > MAX_LINE:
            raise DataError(f"{path}: line {number}: field longer than {MAX_LINE} characters")
        offset += len(line)
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: line {number}: byte {error.object[error.start]:#x} is not UTF-8 text") from None
    if number == 0:
        raise DataError(f"{path}: file is empty")


def _refuse_other_formats(first_line: bytes, path: str) -> None:
    for magic, words in _NOT_CSV:
        if first_line.startswith(magic):
            raise DataError(f"{path}: {words}")
    if first_line.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise DataError(f"{path}: this is a web page, not a CSV; download it again")


def _columns(header: list[str], path: str) -> tuple[int, int, int | None, int]:
    """Positions of emotion, pixels and Usage (None where there is none), and how many fields a row has."""
    names = [name.strip() for name in header]
    if len(names) <= 1 and names:
        for delimiter in (";", "\t", "|"):
            if delimiter in names[0]:
                raise DataError(f"{path}: looks {delimiter!r}-separated, need ','")
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            raise DataError(f"{path}: column {name!r} twice")
    for name in ("emotion", "pixels"):
        if name not in names:
            found = ", ".join(_short(n) for n in names[:8])
            raise DataError(f"{path}: no column {name!r}; found {found or 'an empty line'}")
    extra = [name for name in names if name not in {"emotion", "pixels", "Usage"}]
    if extra:
        log.warning("%s: columns that are not used: %s", path, ", ".join(_short(n) for n in extra[:8]))
    usage = names.index("Usage") if "Usage" in names else None
    return names.index("emotion"), names.index("pixels"), usage, len(names)


def _parse(fields: list[str], columns: tuple[int, int, int | None, int]) -> tuple[NDArray[np.uint8], int, int]:
    emotion, pixels, usage, n_fields = columns
    if len(fields) != n_fields:
        raise RowFaultError(f"{len(fields)} fields", f"{n_fields}")
    return (
        parse_pixels(fields[pixels]),
        parse_label(fields[emotion]),
        0 if usage is None else parse_usage(fields[usage]),
    )


def _packed(rows: Sequence[tuple[NDArray[np.uint8], int, int]]) -> Chunk:
    pixels, labels, usage = zip(*rows, strict=True)
    return Chunk(np.stack(pixels), np.array(labels, np.uint8), np.array(usage, np.uint8))
