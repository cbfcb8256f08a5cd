"""Faults native to a data set: exact duplicates, contradictory labels, leaks between splits, blank images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFaults:
    """Equal images. A group is two or more of them; `surplus` counts all but one of each."""

    groups: int
    surplus: int
    contradictory: int
    """Groups whose images don't all have the same label."""


def duplicate_faults(digests: Sequence[bytes], labels: NDArray[np.uint8]) -> DuplicateFaults:
    """Count groups of equal images by their digests (`faces.image_digests`) and labels uint8 [N]."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for digest, label in zip(digests, labels.tolist(), strict=True):
        groups[digest].append(label)
    several = [group for group in groups.values() if len(group) > 1]
    return DuplicateFaults(
        groups=len(several),
        surplus=sum(len(group) - 1 for group in several),
        contradictory=sum(len(set(group)) > 1 for group in several),
    )


def leaks(digests: Sequence[bytes], trained: NDArray[np.int64], others: NDArray[np.int64]) -> int:
    """How many images of `others` have a pixel-for-pixel twin in `trained` (both index arrays)."""
    known = {digests[i] for i in trained}
    return sum(digests[i] in known for i in others)


def blank_rows(images: NDArray[np.uint8]) -> list[int]:
    """Rows (from 0) of the images [N, S, S] that are one grey all over."""
    flat = images.reshape(len(images), -1)
    return np.flatnonzero(flat.min(axis=1) == flat.max(axis=1)).tolist()
