"""Faces drawn by program: seven emotions as brows, eyes and mouth, under changing pose, light, noise and occlusion.

Deterministic and FER-shaped, so that everything runs with no download. Hard enough that hyperparameters matter: a
wrong learning rate or too much dropout costs tens of points of accuracy within a minute on two cores.

Legend: S pixels a side. Coordinates are in units of half a face, x to the right, y down, (0, 0) between the eyes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.faces import EMOTIONS, Faces

_Grid = NDArray[np.float64]
_Jitter = Callable[[float], float]
"""A normal deviate with this spread, times the drawing's variation."""


@dataclass(frozen=True, slots=True)
class _Expression:
    """What an emotion does to a face. Lengths in half faces, angles in radians."""

    brow_height: float
    brow_slope: float
    """Above 0: the inner ends are lower, as in anger."""
    eye_opening: float
    mouth_curve: float
    """Above 0: the corners are higher, as in a smile."""
    mouth_opening: float
    mouth_width: float
    mouth_skew: float


_EXPRESSIONS = {
    "angry": _Expression(-0.24, 0.50, 0.10, -0.10, 0.05, 0.30, 0.0),
    "disgust": _Expression(-0.24, 0.30, 0.06, -0.14, 0.10, 0.26, 0.14),
    "fear": _Expression(-0.38, -0.40, 0.19, -0.06, 0.13, 0.34, 0.0),
    "happy": _Expression(-0.33, -0.05, 0.09, 0.22, 0.11, 0.42, 0.0),
    "sad": _Expression(-0.29, -0.45, 0.08, -0.18, 0.03, 0.28, 0.0),
    "surprise": _Expression(-0.46, -0.10, 0.21, 0.0, 0.26, 0.22, 0.0),
    "neutral": _Expression(-0.31, 0.0, 0.12, 0.0, 0.04, 0.32, 0.0),
}


def synthetic_faces(
    *, n_train: int, n_validation: int, n_test: int = 0, image_size: int = 48, seed: int = 0, variation: float = 1.0
) -> Faces:
    """Draw a data set.

    Args:
        n_train: images to train on; the three counts must be at least 0 and 7 in all.
        n_validation: images to validate on.
        n_test: images to test on; 0 leaves the split out.
        image_size: S, at least 16.
        seed: of everything: equal arguments give equal bytes.
        variation: how much pose, light, noise and the expression itself vary; 0 draws seven clean faces.

    Raises:
        ValueError: a count, size or variation out of range.
    """
    n_images = n_train + n_validation + n_test
    if min(n_train, n_validation, n_test) < 0 or n_images < len(EMOTIONS):
        raise ValueError(f"found {n_train} + {n_validation} + {n_test} images, need at least {len(EMOTIONS)}, none < 0")
    if image_size < 16 or variation < 0:
        raise ValueError(f"found image_size {image_size}, variation {variation}, need at least 16 and 0")
    random = np.random.default_rng([seed, image_size])
    # Every class in every stretch of seven, in a shuffled order: any cut of the rows is nearly balanced.
    blocks = [random.permutation(len(EMOTIONS)) for _ in range(-(-n_images // len(EMOTIONS)))]
    labels = np.concatenate(blocks)[:n_images].astype(np.uint8)
    images = np.stack([draw_face(EMOTIONS[label], image_size, random, variation) for label in labels])
    images.setflags(write=False)
    ends = np.cumsum([n_train, n_validation, n_test])
    indices = np.split(np.arange(n_images, dtype=np.int64), ends[:-1])
    named = f"n_train={n_train} n_validation={n_validation} n_test={n_test} size={image_size} seed={seed}"
    return Faces(
        images=images,
        labels=labels,
        splits={s: rows for s, rows in zip(("train", "validation", "test"), indices, strict=True) if len(rows)},
        class_names=EMOTIONS,
        digest=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
        name="synthetic-faces",
        source=f"data.synthetic {named} variation={variation:g}",
        split_name="drawn",
    )


def draw_face(emotion: str, image_size: int, random: np.random.Generator, variation: float = 1.0) -> NDArray[np.uint8]:
    """Draw one face, uint8 [S, S], with the emotion's expression and the generator's chances."""
    expression = _EXPRESSIONS[emotion]

    def jitter(scale: float) -> float:
        return float(random.normal(0.0, scale * variation))

    x, y = _pose(image_size, jitter)
    face = np.hypot(x / (0.82 + jitter(0.04)), (y - 0.22) / (1.02 + jitter(0.04)))
    skin, ink = 0.68 + jitter(0.07), 0.20 + jitter(0.05)
    image = np.where(face < 1, skin, 0.35 + jitter(0.12))
    image -= 0.25 * _soft(np.abs(face - 1), 0.05)

    eye_opening = max(0.03, expression.eye_opening + jitter(0.03))
    height = expression.brow_height + jitter(0.035)
    slope = expression.brow_slope + jitter(0.12)
    for side in (-1, 1):
        outward = x * side - 0.36  # from the middle of this eye, away from the nose
        white = np.hypot(outward / 0.17, y / eye_opening) < 1
        image = np.where(white, 0.92, image)
        image = np.where(white & (np.hypot(outward, y) < 0.09), ink, image)
        brow = np.abs(y - height + slope * outward * 0.6)
        image = _blend(image, ink, _soft(brow, 0.035) * (np.abs(outward) < 0.20))
    nose = np.hypot(x / 0.06, (y - 0.34) / 0.16)
    image -= 0.10 * (nose < 1)
    image = _mouth(image, x, y, expression, ink, jitter)
    return _photograph(image, x, y, random, variation)


def _pose(image_size: int, jitter: _Jitter) -> tuple[_Grid, _Grid]:
    """Pixel centres in face coordinates, turned, scaled and shifted a little."""
    axis = (np.arange(image_size) + 0.5) / image_size * 2.7 - 1.35
    columns, rows = np.meshgrid(axis, axis)
    angle, scale = jitter(0.14), 1.0 + jitter(0.07)
    columns = (columns - jitter(0.09)) * scale
    rows = (rows - jitter(0.09)) * scale + 0.22
    return columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)


def _mouth(image: _Grid, x: _Grid, y: _Grid, expression: _Expression, ink: float, jitter: _Jitter) -> _Grid:
    width = max(0.12, expression.mouth_width + jitter(0.04))
    curve = expression.mouth_curve + jitter(0.05)
    opening = max(0.02, expression.mouth_opening + jitter(0.025))
    along = np.clip(x / width, -1, 1)
    middle = 0.74 - curve * (along**2 - 0.4) - expression.mouth_skew * along * 0.5
    inside = (np.abs(x) < width) & (np.abs(y - middle) < opening * np.sqrt(1 - along**2))
    image = np.where(inside, ink, image)
    lips = _soft(np.abs(y - middle), 0.03) * (np.abs(x) < width)
    return _blend(image, ink, lips * ~inside)


def _photograph(image: _Grid, x: _Grid, y: _Grid, random: np.random.Generator, variation: float) -> NDArray[np.uint8]:
    """Light from a side, an object before the face now and then, blur of the sensor, noise, contrast."""
    image = image + variation * (random.normal(0, 0.10) * x + random.normal(0, 0.08) * y)
    if random.random() < 0.25 * variation:  # a hand or a hat: a grey bar that hides a part
        centre, angle = random.uniform(-0.9, 0.9), random.uniform(0, np.pi)
        across = x * np.cos(angle) + (y - 0.3) * np.sin(angle) - centre
        image = np.where(np.abs(across) < random.uniform(0.05, 0.18), random.uniform(0.1, 0.9), image)
    else:
        random.random(4)  # the same number of draws either way
    image = image + random.normal(0, 0.055 * variation, image.shape)
    image = (image - 0.5) * (1 + random.normal(0, 0.12 * variation)) + 0.5 + random.normal(0, 0.05 * variation)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _soft(distance: _Grid, width: float) -> _Grid:
    return np.exp(-((distance / width) ** 2))


def _blend(image: _Grid, value: float, share: _Grid) -> _Grid:
    return image * (1 - share) + value * share
