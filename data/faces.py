"""A face data set: images, labels, splits. The value that everything else is given.

Legend: N images, S pixels a side, K classes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Class names of FER2013 in the order of its labels 0..6."""

USAGES = ("Training", "PublicTest", "PrivateTest")
"""Values of FER2013's column `Usage`, in the order of their codes 0..2."""

Split = str
"""`train`, `validation` or `test`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Grey faces with a label each, and which of them train, validate and test.

    Attributes:
        images: uint8 [N, S, S], 0 black to 255 white; a read-only memory map where it comes from the cache.
        labels: uint8 [N], indices into `class_names`.
        splits: `train`, `validation` and, where the data have one, `test`: int64 indices into the N images, disjoint.
        class_names: K names.
        digest: sha256 (hex) of what the images come from; two sets with one digest hold the same images.
        name: what the set is called in an MLflow dataset.
        source: where it was read, for people.
        split_name: how it was split (`paper`, `official`, ...).
    """

    images: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.uint8] = field(repr=False)
    splits: Mapping[Split, NDArray[np.int64]] = field(repr=False)
    class_names: tuple[str, ...]
    digest: str
    name: str
    source: str
    split_name: str

    @property
    def image_size(self) -> int:
        """S, the pixels of a side."""
        return int(self.images.shape[1])

    @property
    def identity(self) -> str:
        """sha256 (hex, 36 characters: MLflow keeps no more) of the source, the split and every index in it."""
        digest = hashlib.sha256(f"{self.digest} {self.split_name}".encode())
        for split in sorted(self.splits):
            digest.update(split.encode() + np.ascontiguousarray(self.splits[split], np.int64).tobytes())
        return digest.hexdigest()[:36]

    def counts(self) -> dict[str, list[int]]:
        """How many images of each class a split holds: split -> K counts."""
        n_classes = len(self.class_names)
        return {s: np.bincount(self.labels[rows], minlength=n_classes).tolist() for s, rows in self.splits.items()}

    def limited(self, n_images: int) -> "Faces":
        """The same set with at most `n_images` for training, and validation cut by the same share; test stays whole.

        The first of each split are kept: FER2013's rows are in no order.
        """
        n_train = len(self.splits["train"])
        if n_images >= n_train:
            return self
        n_validation = max(1, round(len(self.splits["validation"]) * n_images / n_train))
        kept = {"train": self.splits["train"][:n_images], "validation": self.splits["validation"][:n_validation]}
        return replace(self, splits={**self.splits, **kept}, split_name=f"{self.split_name}-{n_images}")


def image_digests(images: NDArray[np.uint8]) -> list[bytes]:
    """A 16-byte digest of each image [N, S, S]: equal images, and only they, share one."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def drop_leaks(splits: Mapping[Split, NDArray[np.int64]], digests: Sequence[bytes]) -> dict[Split, NDArray[np.int64]]:
    """The splits less every validation and test image that training also holds, pixel for pixel."""
    trained = {digests[i] for i in splits["train"]}

    def kept(rows: NDArray[np.int64]) -> Iterator[int]:
        return (int(i) for i in rows if digests[i] not in trained)

    return {split: rows if split == "train" else np.fromiter(kept(rows), np.int64) for split, rows in splits.items()}
