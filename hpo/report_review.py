"""What the trainer itself says of the best trial: asked once, and kept in the trial's folder."""

import base64
import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.report_values import Table, cell
from hpo.spec import Trainer
from hpo.whole import write_whole

log = logging.getLogger("hpo")

FILE = "review.json"
MAX_PICTURE_BYTES = 4_000_000
"""A page that is opened on a telephone carries no larger picture."""
TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".svg": "svg+xml"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the page carries in itself.

    Attributes:
        words: what it shows.
        uri: its data URI.
        is_wide: whether it would be too small to be read on a telephone, and scrolls there.
    """

    words: str
    uri: str
    is_wide: bool


@dataclass(frozen=True, slots=True)
class Section:
    """One section as the page has it."""

    title: str
    text: str
    table: Table | None
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Review:
    """What there is to say, or, in words, why there is nothing."""

    sections: Sequence[Section]
    words: str = ""


def review(study: str, trial: Path, prepare: Callable[[], Trainer]) -> Review:
    """What the trainer says of the trial in a folder.

    Args:
        study: its name.
        trial: the trial's folder, with its weights.
        prepare: makes the trainer that is asked; where that raises, there is no review.
    """
    folder = trial / "review"
    kept = folder / FILE
    try:
        return Review([_section(raw, folder) for raw in json.loads(kept.read_bytes())])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s can't be read, the trainer is asked anew: %s", kept, error)
    if not any((trial / "weights").glob("*")):
        return Review([], f"The trainer's own review is left out: {trial} holds no weights.")
    try:
        method = getattr(prepare(), "review", None)
        said = None if method is None else list(method(trial))
        if said is None:
            return Review([], f"The trainer's own review is left out: the trainer of {study} has no `review`.")
        raws = json.loads(json.dumps([dict(raw) for raw in said], default=_plain))
        sections = [_section(raw, folder) for raw in raws]
        folder.mkdir(exist_ok=True)
        write_whole(kept, json.dumps(raws, indent=1).encode())
    except (Exception, SystemExit) as error:  # the study's own code, or its data: the rest of the page is due
        log.debug("the review raised", exc_info=True)
        words = " ".join(str(error).split())
        return Review([], f"The trainer's own review is left out: {type(error).__name__}: {words}"[:400])
    return Review(sections)


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's scalars and arrays, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _section(raw: Mapping[str, Any], folder: Path) -> Section:
    columns = [str(name) for name in raw.get("columns") or ()]
    rows = [[cell(value) for value in row] for row in raw.get("rows") or ()]
    title = str(raw["title"])
    pictures = list(_pictures(title, [str(name) for name in raw.get("pictures") or ()], folder))
    return Section(title, str(raw.get("text") or ""), Table(columns, rows) if rows else None, pictures)


def _pictures(title: str, names: Sequence[str], folder: Path) -> Iterator[Picture]:
    for name in names:
        file = (folder / name).resolve()
        kind = TYPES.get(file.suffix.lower())
        inside = file.is_relative_to(folder.resolve())
        if not inside or kind is None or not file.is_file() or file.stat().st_size > MAX_PICTURE_BYTES:
            log.warning("the review's picture %r is left out: no picture in %s of up to 4 MB", name, folder)
            continue
        words = file.stem.replace("_", " ").replace("-", " ")
        content = file.read_bytes()
        uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        yield Picture(f"{title}: {words}", uri, _is_wide(content))


def _is_wide(content: bytes) -> bool:
    """Of a PNG: its width and height stand at bytes 16 to 24."""
    if content[:4] != b"\x89PNG" or len(content) < 24:
        return False
    width, height = struct.unpack(">II", content[16:24])
    return bool(width > 1.5 * height)
