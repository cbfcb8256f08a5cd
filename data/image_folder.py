"""FER2013 as a folder of images: `train/<class>/*.png|jpg` and `test/<class>/*.png|jpg`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data.errors import DataError, RowFaults
from data.faces import EMOTIONS, USAGES
from data.rows import SIDE, Chunk

_CLASSES = {name: label for label, name in enumerate(EMOTIONS)} | {"disgusted": 1, "fearful": 2, "surprised": 5}
_USAGE = {"train": USAGES.index("Training"), "test": USAGES.index("PrivateTest")}
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp"}
_CHUNK_ROWS = 256


def is_image_folder(path: Path) -> bool:
    """Whether `path` has a folder `train` with a class in it."""
    train = path / "train"
    return train.is_dir() and any(p.is_dir() and p.name.lower() in _CLASSES for p in train.iterdir())


def listing(path: Path) -> list[tuple[Path, int, int]]:
    """Every image as (path, label 0..6, usage 0..2), sorted by name: the folder has no other order.

    Raises:
        DataError: a class folder with an unknown name, or a file that is no image.
    """
    found = []
    for part, usage in _USAGE.items():
        for folder in sorted((path / part).iterdir()) if (path / part).is_dir() else ():
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            if folder.name.lower() not in _CLASSES:
                raise DataError(f"{folder}: unknown class {folder.name!r}, need one of {', '.join(_CLASSES)}")
            for file in sorted(folder.iterdir()):
                if file.name.startswith(".") or file.name == "Thumbs.db":
                    continue
                if not file.is_file() or file.suffix.lower() not in _IMAGES:
                    raise DataError(f"{file}: not an image, need {', '.join(sorted(_IMAGES))}")
                found.append((file, _CLASSES[folder.name.lower()], usage))
    if not found:
        raise DataError(f"{path}: no images under train/<class>/")
    return found


def digest(path: Path, files: list[tuple[Path, int, int]]) -> str:
    """sha256 (hex) of every image's place and bytes."""
    whole = hashlib.sha256()
    for file, *_ in files:
        whole.update(file.relative_to(path).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def read_images(path: Path, files: list[tuple[Path, int, int]]) -> Iterator[Chunk]:
    """Decode images to chunks, in order.

    Raises:
        DataError: an image that can't be decoded or is not 48×48 (the first five, then a count).
    """
    faults = RowFaults(str(path))
    for start in range(0, len(files), _CHUNK_ROWS):
        block = files[start : start + _CHUNK_ROWS]
        pixels = []
        for number, (file, *_) in enumerate(block, start=start + 1):
            image = _decode(file, number, faults)
            if image is not None:
                pixels.append(image)
        if not faults.count:
            _, labels, usage = zip(*block, strict=True)
            yield Chunk(np.stack(pixels), np.array(labels, np.uint8), np.array(usage, np.uint8))
    faults.raise_if_any()


def _decode(file: Path, number: int, faults: RowFaults) -> NDArray[np.uint8] | None:
    where = f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
    try:
        with Image.open(file) as image:
            if image.size != (SIDE, SIDE):  # before it is decoded: a header may promise gigabytes
                faults.add(number, f"{image.size[0]}×{image.size[1]} pixels in {where}", f"{SIDE}×{SIDE}")
                return None
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        faults.add(number, f"no readable image in {where}", "PNG or JPEG")
        return None


def content_order(images: NDArray[np.uint8], seed: int) -> NDArray[np.int64]:
    """An order of images [N, S, S] by a seeded hash of their pixels: names and places don't matter to it.

    Returns:
        int64 [N], indices into `images`. Equal images stand together.
    """
    key = seed.to_bytes(8, "little")
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in images]
    return np.array(sorted(range(len(hashes)), key=lambda i: hashes[i]), np.int64)


def stratified(labels: NDArray[np.uint8], share: float) -> NDArray[np.bool_]:
    """Which of labels uint8 [N] are among the first `share` (in (0, 1)) of their class: bool [N]."""
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen[rows[: round(len(rows) * share)]] = True
    return chosen
