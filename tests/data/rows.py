"""Small FER2013 files for the tests of reading."""

import io
from collections.abc import Sequence

import numpy as np

PIXELS = " ".join(str(i % 256) for i in range(2304))


def rows(n: int = 21, usages: Sequence[str] = ("Training", "PublicTest", "PrivateTest")) -> list[str]:
    """`n` good rows, all classes in each third."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, 2304))
    return [f"{i % 7},{' '.join(map(str, image))},{usages[i * len(usages) // n]}" for i, image in enumerate(images)]


def csv_text(lines: Sequence[str], header: str = "emotion,pixels,Usage", end: str = "\n") -> bytes:
    return (end.join([header, *lines]) + end).encode()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
