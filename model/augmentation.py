"""How training images are varied: a mirrored face is a face, and so is one a few pixels off.

Legend: B batch, S image size.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Augmentation = Literal["none", "flip", "flip-shift"]
"""`none` as published; `flip` mirrors half of the images, drawn anew each time; `flip-shift` moves each as well."""
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)


def reach(augmentation: Augmentation, image_size: int) -> int:
    """The most pixels that an image is moved by, each way: a twelfth of its side, 4 of 48."""
    return max(1, image_size // 12) if augmentation == "flip-shift" else 0


def varied(images: Tensor, rows: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """The images `rows` int64 [B] of uint8 [N, S, S], each varied at random: uint8 [B, S, S].

    What a moved image uncovers is filled with its edge. `generator` lives on the images' device; `none` draws nothing.
    """
    if augmentation == "none":
        return images[rows]
    n, size, device = len(rows), images.shape[1], images.device
    most = reach(augmentation, size)
    flips = torch.randint(0, 2, (n,), generator=generator, device=device)
    shifts = torch.randint(-most, most + 1, (2, n), generator=generator, device=device) if most else None
    return moved(images, rows, flips, shifts)


def moved(images: Tensor, rows: Tensor, flips: Tensor, shifts: Tensor | None) -> Tensor:
    """The images `rows`, moved by shifts int64 [2, B] (down, right) and then mirrored where flips [B] is 1."""
    size = images.shape[1]
    at = torch.arange(size, device=images.device)
    down, right = (0, 0) if shifts is None else (shifts[0, :, None], shifts[1, :, None])
    columns = torch.where(flips[:, None] == 1, size - 1 - at, at)
    i = (at - down).clamp(0, size - 1)
    j = (columns - right).clamp(0, size - 1)
    return images[rows[:, None, None], i.reshape(-1, size, 1), j[:, None, :]]
