"""Faces of a stream of frames to emotions: detection and network, each in a thread of its own.

Legend: N faces, S pixels a side, K classes.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model.detection import Box, Detector, cut_faces
from model.frames import Fault, Frame, Item, Source
from model.handover import ahead


class Network(Protocol):
    """What is used of `model.exported.Classifier`."""

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of faces uint8 [N, S, S]: float32 [N, K]."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face that was found.

    Attributes:
        box: where, in pixels of the picture.
        emotion: the likeliest.
        probabilities: by class name, in the network's order; they sum to 1.
    """

    box: Box
    emotion: str
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """A frame and its faces, from left to right."""

    frame: Frame
    faces: tuple[Face, ...]

    @property
    def source(self) -> Source:
        """Of the frame."""
        return self.frame.source


Result = Recognised | Fault


def recognise(
    items: Generator[Item, None, None],
    detector: Detector,
    network: Network,
    *,
    class_names: tuple[str, ...],
    image_size: int,
) -> Generator[Result, None, None]:
    """Each frame with its faces, in order; faults pass through, and a frame that can't be worked on becomes one.

    Decoding, detection and network work on three frames at a time. Frames of a live source wait at most one at a
    time: while detection is at work, an older one gives way to a newer one.

    Args:
        items: frames and faults; read and closed in a thread of its own.
        detector: called in one thread.
        network: called in one thread.
        class_names: K names.
        image_size: S.
    """

    def detect(item: Item) -> Result:
        if isinstance(item, Fault):
            return item
        try:
            # What was found waits with its emotion to be named.
            return Recognised(item, tuple(Face(box, "", {}) for box in detector(item.pixels)))
        except (cv2.error, MemoryError) as error:
            return _fault(item, error)

    def name(result: Result) -> Result:
        if isinstance(result, Fault) or not result.faces:
            return result
        try:
            faces = cut_faces(result.frame.pixels, [face.box for face in result.faces], image_size)
        except (cv2.error, MemoryError) as error:
            return _fault(result.frame, error)
        rows = network.probabilities(faces)
        named = (_named(face.box, class_names, row) for face, row in zip(result.faces, rows, strict=True))
        return replace(result, faces=tuple(named))

    read = ahead(items, lambda item: item, may_drop=_is_live)
    return ahead(ahead(read, detect), name)


def as_json(result: Recognised) -> dict[str, Any]:
    """What `--json` prints of a frame: source, frame, seconds, faces with box [x, y, width, height]."""
    frame = result.frame
    return {
        "source": frame.source.name,
        "frame": None if frame.source.kind == "photo" else frame.index,
        "seconds": None if frame.source.kind == "photo" else round(frame.seconds, 3),
        "faces": [
            {
                "box": [face.box.x, face.box.y, face.box.side, face.box.side],
                "emotion": face.emotion,
                "probabilities": {name: round(value, 4) for name, value in face.probabilities.items()},
            }
            for face in result.faces
        ],
    }


def as_lines(result: Recognised) -> list[str]:
    """What is printed of a frame: a line a face; for a photo without one, a line that says so."""
    frame, n_faces = result.frame, len(result.faces)
    where = frame.source.name
    if frame.source.kind != "photo":
        where = f"{where}: frame {frame.index} at {frame.seconds:.2f} s"
    elif not n_faces:
        return [f"{where}: no face"]
    lines = []
    for number, face in enumerate(result.faces, start=1):
        box, chances = face.box, ", ".join(f"{name} {value:.2f}" for name, value in face.probabilities.items())
        place = f"at {box.x},{box.y} of {box.side}×{box.side}"
        lines.append(f"{where}: face {number} of {n_faces} {place}: {face.emotion} ({chances})")
    return lines


def _named(box: Box, class_names: tuple[str, ...], row: NDArray[np.float32]) -> Face:
    return Face(box, class_names[int(row.argmax())], dict(zip(class_names, row.tolist(), strict=True)))


def _is_live(item: Item) -> bool:
    return isinstance(item, Frame) and item.source.live


def _fault(frame: Frame, error: Exception) -> Fault:
    words = (str(error).splitlines() or [type(error).__name__])[0]
    return Fault(frame.source, f"{frame.source.name}: can't be worked on ({words[:120]})")
