"""Where pictures come from: photos, videos, a camera, as one stream of frames. What can't be read is a value in it."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from data.errors import DataError, printable
from model.photos import Pixels, check_size, read_photo

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".ts")
"""Suffixes of files that are read as videos."""

_USUAL_RATE = 25.0
_LEAST_SHARE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One photo, video or camera; the same file named twice is two of them.

    Attributes:
        name: for people, printable.
        kind: what it is.
        path: None for a camera.
        rate: frames per second; 0 for a photo.
        live: frames that are not taken in time may be left out.
    """

    name: str
    kind: Literal["photo", "video", "camera"]
    path: Path | None = None
    rate: float = 0.0
    live: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        index: from 0.
        seconds: since the source's first frame: in the video's own time, for a camera in ours.
        pixels: uint8 [H, W, 3], blue, green, red.
    """

    source: Source
    index: int
    seconds: float
    pixels: Pixels


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """What is wrong with a source, in one line that begins with its name."""

    source: Source
    line: str


Item = Frame | Fault
Stream = Generator[Item, None, None]


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: D102, N802  OpenCV's names
    def read(self) -> tuple[bool, Any]: ...  # noqa: D102
    def get(self, propId: int) -> float: ...  # noqa: D102, N803
    def release(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the time comes from; tests bring another.

    Attributes:
        now: seconds, growing.
        sleep: waits so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


def of_files(paths: Sequence[Path], *, live: bool = False, clock: Clock = Clock()) -> Stream:
    """All frames of photos and videos, file after file; a file that can't be read gives one `Fault`.

    Args:
        paths: photos, or videos by their suffix.
        live: videos at their own speed, their frames droppable.
        clock: for `live`.
    """
    for path in paths:
        name = printable(path)
        is_video = path.suffix.lower() in VIDEOS
        source = Source(name, "video" if is_video else "photo", path)
        if words := _refusal(path):
            yield Fault(source, f"{name}: {words}")
        elif is_video:
            # An absolute path, and FFmpeg by name: no file's name is taken for an address or a pattern of names.
            yield from _video(source, cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG), live=live, clock=clock)
        else:
            try:
                yield Frame(source, 0, 0.0, read_photo(path))
            except DataError as error:
                yield Fault(source, f"{name}: {error}")


def of_camera(
    number: int,
    *,
    opened: Callable[[int], Capture] = cv2.VideoCapture,
    clock: Clock = Clock(),
) -> Stream:
    """Frames of the camera with this number, from 0, for as long as it gives them; then a `Fault`."""
    name = f"camera {number}"
    capture = opened(number)
    try:
        if not capture.isOpened():
            yield Fault(Source(name, "camera"), f"{name}: can't be opened; is it there, and free?")
            return
        source = Source(name, "camera", rate=_rate(capture), live=True)
        began: float | None = None
        for index in count():
            good, pixels = capture.read()
            if not good:
                yield Fault(source, f"{name}: gives no {'more pictures' if index else 'picture'}")
                return
            began = clock.now() if began is None else began
            yield Frame(source, index, clock.now() - began, _bgr(pixels))
    finally:
        capture.release()


def _refusal(path: Path) -> str | None:
    """Why a path is not even opened."""
    try:
        if path.is_dir():
            return "a folder; name the photos in it"
        if not path.exists():
            return "no such file"
        if not path.is_file():
            return "not a regular file"
        return None if path.stat().st_size else "an empty file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _video(found: Source, capture: Capture, *, live: bool, clock: Clock) -> Stream:
    try:
        if not capture.isOpened():
            yield Fault(found, f"{found.name}: no video that can be read")
            return
        try:
            check_size(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        except DataError as error:
            yield Fault(found, f"{found.name}: {error}")
            return
        source = Source(found.name, "video", found.path, _rate(capture), live)
        began, n_read = clock.now(), 0
        while True:
            good, pixels = capture.read()
            if not good:
                break
            seconds = n_read / source.rate
            if live and (early := began + seconds - clock.now()) > 0:
                clock.sleep(early)
            yield Frame(source, n_read, seconds, _bgr(pixels))
            n_read += 1
        n_promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate in some containers
        if not n_read:
            yield Fault(source, f"{source.name}: a video without a frame that can be read")
        elif n_read < _LEAST_SHARE * n_promised:
            yield Fault(source, f"{source.name}: broken after {n_read} of {n_promised} frames")
    finally:
        capture.release()


def _rate(capture: Capture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 1 <= rate <= 1000 else _USUAL_RATE


def _bgr(pixels: Any) -> Pixels:
    found = np.asarray(pixels, np.uint8)
    return found if found.ndim == 3 else np.repeat(found[..., np.newaxis], 3, axis=2)
