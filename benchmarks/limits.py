"""How near a training step is to its device's limits: arithmetic and bytes are counted, both rates measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.device import Compute
from model.network import CHANNELS, HIDDEN, N_CLASSES

_PASSES = 3
"""Products of a layer in a step: of its output, of its input's gradient, of its weights' gradient."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a training step does for one image, and for a whole batch whatever its size.

    Attributes:
        operations: multiplications and additions of convolutions and linear layers, for one image.
        image_bytes: what is moved at least for one image, each map once for each layer that needs it.
        weight_bytes: what is moved at least for the weights, by Adam.
    """

    operations: float
    image_bytes: float
    weight_bytes: float


def work(pool_stride: int, image_size: int, itemsize: int) -> Work:
    """Counted from the layers.

    A block's maps: its input is read forward and for the weights' gradient, and its gradient written; what its
    convolution gives is written and read forward, and read and written again for normalisation and pooling backward,
    and its gradient is read twice; what is pooled is written forward, its gradient read backward. Weights of 4 bytes:
    read twice in products, their gradient written and read, Adam's two moments and they themselves read and written.

    Args:
        pool_stride: of the network.
        image_size: S.
        itemsize: bytes of a number of the maps.
    """
    operations, moved, n_weights = 0.0, 0.0, 0
    n_in, size = 1, image_size
    for n_out in CHANNELS:
        pooled = (size - 2) // pool_stride + 1
        of_input, of_output = n_in * size**2, n_out * size**2
        passes = _PASSES if n_in > 1 else _PASSES - 1  # images need no gradient
        operations += passes * 2 * 9 * n_in * of_output
        moved += 3 * of_input + 6 * of_output + 2 * n_out * pooled**2
        n_weights += n_out * (9 * n_in + 3)
        n_in, size = n_out, pooled
    for inputs, outputs in ((n_in * size**2, HIDDEN), (HIDDEN, N_CLASSES)):
        operations += _PASSES * 2 * inputs * outputs
        moved += 3 * inputs + 3 * outputs
        n_weights += (inputs + 1) * outputs
    return Work(operations, moved * itemsize, n_weights * 4 * (2 + 2 + 6))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device does, measured: operations a second of a large matrix product, bytes a second of a large copy."""

    operations: float
    bytes: float

    def shares(self, of: Work, batch: int, images_per_second: float) -> tuple[float, float]:
        """Which part of both a step at this rate makes use of."""
        moved = of.image_bytes + of.weight_bytes / batch
        return images_per_second * of.operations / self.operations, images_per_second * moved / self.bytes


def limits(compute: Compute) -> Limits:
    """Measure both: the best of seven runs of each, in the precision that steps are run in."""
    on_gpu = compute.device.type == "cuda"
    n, n_copied = (8_192, 1 << 28) if on_gpu else (2_048, 1 << 26)
    dtype = compute.autocast or torch.float32
    a, b = (torch.ones((n, n), dtype=dtype, device=compute.device) for _ in range(2))
    source = torch.ones(n_copied, dtype=torch.float32, device=compute.device)
    target = torch.empty_like(source)
    product = _seconds(lambda: torch.mm(a, b), on_gpu=on_gpu)
    copied = _seconds(lambda: target.copy_(source), on_gpu=on_gpu)
    return Limits(2 * n**3 / product, 2 * source.nbytes / copied)  # read and written


def _seconds(run: Callable[[], object], *, on_gpu: bool) -> float:
    """The best of seven, after two to warm up."""
    found = []
    for _ in range(9):
        began = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[2:])
