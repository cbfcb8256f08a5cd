"""Pictures with the faces marked: as a file beside others, as a video, in a window."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from data.errors import DataError
from data.files import replacing, write_whole
from model.photos import Pixels
from model.recognition import Recognised

_COLOURS = (
    (60, 60, 220), (60, 140, 60), (180, 80, 160), (40, 170, 230), (200, 120, 40), (30, 110, 240), (120, 120, 120),
)  # fmt: skip
"""Of the classes, in order: blue, green, red."""

_ESCAPE = 27
_SCREEN = 1280
"""Pixels of a picture's longer side, at most, in a window."""


def marked(result: Recognised, *, note: str = "") -> Pixels:
    """A copy of the frame with a square and a word at each face, and a note in the corner: uint8 [H, W, 3]."""
    pixels = result.frame.pixels.copy()
    thickness = max(1, round(max(pixels.shape[:2]) / 500))
    for face in result.faces:
        colour = _COLOURS[list(face.probabilities).index(face.emotion) % len(_COLOURS)]
        box = face.box
        cv2.rectangle(pixels, (box.x, box.y), (box.x + box.side - 1, box.y + box.side - 1), colour, thickness)
        words = f"{face.emotion} {face.probabilities[face.emotion]:.0%}"
        _label(pixels, words, (box.x, box.y), colour, fits=box.side)
    if note:
        _label(pixels, note, (0, 0), (40, 40, 40), fits=max(120, pixels.shape[1] // 5))
    return pixels


def _label(pixels: Pixels, words: str, corner: tuple[int, int], colour: tuple[int, int, int], *, fits: int) -> None:
    """White on a coloured bar that ends at the corner, or begins there where the picture has no room above."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, _), _ = cv2.getTextSize(words, font, 1.0, 1)
    scale = max(0.35, min(fits, pixels.shape[1]) / max(1, width))
    (width, height), below = cv2.getTextSize(words, font, scale, 1)
    x = max(0, min(corner[0], pixels.shape[1] - width))
    bar = height + 2 * below
    top = corner[1] - bar if corner[1] >= bar else max(0, corner[1])
    cv2.rectangle(pixels, (x, top), (x + width, top + bar), colour, cv2.FILLED)
    thickness = max(1, round(scale * 1.5))
    cv2.putText(pixels, words, (x, top + bar - below), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)


class Outputs:
    """Names for annotated copies in one folder, none given twice.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._given = folder, set[Path]()

    def path(self, result: Recognised) -> Path:
        """A place for the copy: NAME.recognized.jpg, .png or .mp4; NAME.2.recognized… for the next of that name."""
        source = result.source
        stem = source.path.stem if source.path else source.name.replace(" ", "-")
        is_jpeg = source.path is not None and source.path.suffix.lower() in {".jpg", ".jpeg"}
        suffix = (".jpg" if is_jpeg else ".png") if source.kind == "photo" else ".mp4"
        number, found = 1, self._folder / f"{stem}.recognized{suffix}"
        while found in self._given:
            number += 1
            found = self._folder / f"{stem}.{number}.recognized{suffix}"
        self._given.add(found)
        return found


def write_photo(path: Path, pixels: Pixels) -> None:
    """Write a picture in the format of its suffix, whole or not at all.

    Raises:
        DataError: it can't be encoded.
        OSError: it can't be written.
    """
    try:
        good, content = cv2.imencode(path.suffix, pixels)
    except cv2.error:
        good = False
    if not good:
        raise DataError(f"{path}: {pixels.shape[1]}×{pixels.shape[0]} pixels can't be written as {path.suffix}")
    write_whole(path, content.tobytes())


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Callable[[Pixels, float], None]]:
    """A video (MPEG-4, mp4) to write; it takes its place when the block ends well, else nothing is left.

    Yields a function of a picture uint8 [H, W, 3] and its time in seconds: a picture stays until the next one's time,
    so that a video keeps its speed where frames were left out. All have the first one's size.

    Args:
        path: ends in .mp4.
        rate: frames per second.

    Raises:
        DataError: no video of this size can be written, or it was not written whole.
    """
    with replacing(path) as temporary:
        building = temporary.with_name(f"{temporary.name}.mp4")  # OpenCV goes by the suffix
        video = _Video(path, building, rate)
        try:
            yield video.add
            video.finish()
            building.replace(temporary)
        finally:
            video.release()
            building.unlink(missing_ok=True)


class _Video:
    """A video in the making.

    Args:
        path: what errors name.
        building: where it is written.
        rate: frames per second.
    """

    def __init__(self, path: Path, building: Path, rate: float) -> None:
        self._path, self._building, self._rate = path, building, rate
        self._writer = cv2.VideoWriter()
        self._last: Pixels | None = None
        self._n_written = 0

    def add(self, pixels: Pixels, seconds: float) -> None:
        """See `video_writer`."""
        if self._last is None:
            self._open(pixels)
        else:
            while self._n_written < round(seconds * self._rate):
                self._write(self._last)
            if pixels.shape != self._last.shape:
                size = (self._last.shape[1], self._last.shape[0])
                pixels = np.asarray(cv2.resize(pixels, size), np.uint8)
        self._last = pixels

    def finish(self) -> None:
        """Write what is left, and make sure that it is there: OpenCV's writer does not say that it failed."""
        if self._last is not None:
            self._write(self._last)
        self.release()
        if _n_frames(self._building) < self._n_written:
            raise DataError(f"{self._path}: could not be written whole; is there room on the disk?")

    def release(self) -> None:
        self._writer.release()

    def _open(self, pixels: Pixels) -> None:
        size = (pixels.shape[1], pixels.shape[0])
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        if not self._writer.open(str(self._building.absolute()), cv2.CAP_FFMPEG, codec, self._rate, size):
            raise DataError(f"{self._path}: no video of {size[0]}×{size[1]} pixels can be written")

    def _write(self, pixels: Pixels) -> None:
        self._writer.write(pixels)
        self._n_written += 1


def _n_frames(path: Path) -> int:
    """Of a video that was written; 0 when it can't be opened."""
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def has_windows() -> bool:
    """Whether this OpenCV was built with windows; the headless one was not."""
    found = re.search(r"GUI:\s+(\w+)", cv2.getBuildInformation())
    return found is not None and found[1] != "NONE"


class Window:
    """A window on the screen; used from the main thread.

    Args:
        now: seconds, growing.
    """

    _TITLE = "Emotions (q ends)"

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._shown: deque[float] = deque(maxlen=30)

    def show(self, result: Recognised) -> bool:
        """Show a frame with its frames per second; false when the user has ended it. A photo waits for a key."""
        self._shown.append(self._now())
        is_photo = result.source.kind == "photo"
        pixels = marked(result, note="" if is_photo else f"{self.rate():.1f} fps")
        scale = _SCREEN / max(pixels.shape[:2])
        cv2.imshow(self._TITLE, pixels if scale >= 1 else cv2.resize(pixels, None, fx=scale, fy=scale))
        while True:
            key = cv2.waitKey(50 if is_photo else 1)  # never longer: Ctrl-C waits for it
            if cv2.getWindowProperty(self._TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if not is_photo or key != -1:
                return key & 0xFF not in {ord("q"), _ESCAPE}

    def rate(self) -> float:
        """Frames per second over the last thirty; 0 before there are two."""
        if len(self._shown) < 2 or self._shown[-1] <= self._shown[0]:
            return 0.0
        return (len(self._shown) - 1) / (self._shown[-1] - self._shown[0])

    def close(self) -> None:
        """Take the window away."""
        cv2.destroyAllWindows()
