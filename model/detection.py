"""Finds faces in a picture, and cuts them out as the network wants them.

Legend: N faces, H, W pixels of a picture, S pixels of a face's side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from model.photos import Pixels

_MARGIN = 0.02
"""What a box grows by to be FER2013's crop. Measured: 240 of its images, set into a larger picture, were found by the
cascade in boxes of 0.98 of their side (median; 80 % in 0.81 to 1.11), by YuNet in 0.98 (0.81 to 1.25), both centred."""

PHOTO_SIDE, CAMERA_SIDE = 1280, 640
"""Pixels of a picture's longer side in which faces are looked for, at most: the time goes with their square. In a photo
of many people faces are small; who sits before a camera is near."""

_LEAST_FACE = 30
"""Pixels of a face's side, among those."""


@dataclass(frozen=True, slots=True)
class Box:
    """A square in a picture, in pixels; it may reach beyond the picture's edges."""

    x: int
    y: int
    side: int


class Detector(Protocol):
    """Finds faces."""

    def __call__(self, pixels: Pixels) -> list[Box]:
        """In a picture uint8 [H, W, 3]: a square around each face, cut as tightly as FER2013's are; left to right."""


def make_detector(file: Path | None = None, *, side: int = PHOTO_SIDE) -> Detector:
    """OpenCV's Haar cascade for frontal faces, or YuNet from an ONNX file.

    Args:
        file: YuNet's.
        side: pixels; pictures with a longer one are reduced to it. Boxes are in the picture's own pixels all the same.

    Raises:
        DataError: no such file, not YuNet's, or an OpenCV without cascades.
    """
    return _cascade(side) if file is None else _yunet(file, side)


def cut_faces(pixels: Pixels, boxes: Sequence[Box], size: int) -> NDArray[np.uint8]:
    """Cut faces out of a picture uint8 [H, W, 3], grey and resized by area: uint8 [N, S, S].

    What lies beyond the picture's edge is the edge's colour, as if it went on.
    """
    faces = np.empty((len(boxes), size, size), np.uint8)
    for face, box in zip(faces, boxes, strict=True):
        grey = cv2.cvtColor(_cut(pixels, box), cv2.COLOR_BGR2GRAY)
        face[:] = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    return faces


def _cut(pixels: Pixels, box: Box) -> Pixels:
    height, width = pixels.shape[:2]
    left, top = max(0, -box.x), max(0, -box.y)
    right, bottom = max(0, box.x + box.side - width), max(0, box.y + box.side - height)
    inside = pixels[max(0, box.y) : box.y + box.side, max(0, box.x) : box.x + box.side]
    if not (left or top or right or bottom):
        return inside
    return np.asarray(cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def _cascade(side: int) -> Detector:
    file = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml" if hasattr(cv2, "data") else None
    if file is None or not file.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise DataError(f"OpenCV {cv2.__version__} has no face cascade: pip install 'fer-hpo[recognize]'")
    cascade = cv2.CascadeClassifier(str(file))

    def detect(pixels: Pixels) -> list[Box]:
        small, scale = _reduced(pixels, side)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        found = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(_LEAST_FACE, _LEAST_FACE))
        return _squares([tuple(map(float, box)) for box in found], scale, pixels)

    return detect


def _yunet(file: Path, side: int) -> Detector:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        network = cv2.FaceDetectorYN.create(str(file), "", (320, 320), 0.7)
        network.detect(np.zeros((320, 320, 3), np.uint8))  # another network's file is read, but can't be used
    except cv2.error:
        raise DataError(f"{file}: no face detector that can be read, need YuNet as ONNX") from None

    def detect(pixels: Pixels) -> list[Box]:
        small, scale = _reduced(pixels, side)
        network.setInputSize((small.shape[1], small.shape[0]))
        _, found = network.detect(small)
        rows = () if found is None else found  # x, y, width, height, five points, a score
        return _squares([tuple(map(float, row[:4])) for row in rows], scale, pixels)

    return detect


def _reduced(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """The picture, smaller where it is large, and how much larger the original is."""
    height, width = pixels.shape[:2]
    scale = max(height, width) / side
    if scale <= 1:
        return pixels, 1.0
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _squares(found: Sequence[tuple[float, ...]], scale: float, pixels: Pixels) -> list[Box]:
    """Boxes (x, y, width, height) in the reduced picture to squares around their middles in the whole one."""
    boxes = []
    for x, y, width, height in found:
        side = max(1, round(max(width, height) * (1 + _MARGIN) * scale))
        middle_x, middle_y = (x + width / 2) * scale, (y + height / 2) * scale
        inside = 0 <= middle_x < pixels.shape[1] and 0 <= middle_y < pixels.shape[0]
        if inside and side <= 2 * max(pixels.shape[:2]):
            boxes.append(Box(round(middle_x - side / 2), round(middle_y - side / 2), side))
    return sorted(boxes, key=lambda box: (box.x, box.y))
