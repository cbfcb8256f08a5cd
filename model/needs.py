"""What a trial needs, known before it begins: memory, and the seconds of an epoch."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from model import optimizers
from model.hyperparameters import Hyperparameters
from model.network import CHANNELS, EmotionCNN, n_weights
from model.steps import Steps, Stop

WEIGHT_BYTES = 4
_VALIDATION_SHARE = 0.1
_TEMPORARY = 1.25
"""What a step holds over what it keeps for its backward pass: gradients of activations, work space of convolutions."""


def image_bytes(pool_stride: int, image_size: int, dtype: torch.dtype) -> float:
    """Memory that each image of a batch takes in a training step: what a forward pass keeps, and what is temporary.

    A block keeps its convolution's output as it is and normalised; of what is pooled the places, eight bytes each, the
    clipped values, the mask and the product.

    Args:
        pool_stride: of the network.
        image_size: S.
        dtype: of the activations.
    """
    kept = 0
    for channels, size, pooled in _maps(pool_stride, image_size):
        kept += channels * (dtype.itemsize * (2 * size**2 + 3 * pooled**2) + 8 * pooled**2)
    return _TEMPORARY * kept


def fused_image_bytes(pool_stride: int, image_size: int, dtype: torch.dtype) -> float:
    """The same of `model.fused`, which keeps of a block its convolution's output, what went through, and which, a byte.

    In its backward pass the gradient of one output is there as well.
    """
    kept, outputs = dtype.itemsize * 16 * image_size**2, []
    for channels, size, pooled in _maps(pool_stride, image_size):
        outputs.append(dtype.itemsize * channels * size**2)
        kept += outputs[-1] + (dtype.itemsize + 1) * channels * pooled**2
    return _TEMPORARY * (kept + max(outputs))


def validation_image_bytes(pool_stride: int, image_size: int, dtype: torch.dtype) -> float:
    """Memory that each image takes in validation, where nothing is kept: a block's input, and its output twice."""
    most, n_in = 0, 1
    for channels, size, _ in _maps(pool_stride, image_size):
        most = max(most, (n_in + 2 * channels) * size**2)
        n_in = channels
    return _TEMPORARY * dtype.itemsize * most


def validation_batch(most: int, an_image: float, memory: float) -> int:
    """Images at a time in validation: `most`, or as many as take a tenth of the memory."""
    return max(1, min(most, int(_VALIDATION_SHARE * memory / an_image)))


def _maps(pool_stride: int, image_size: int) -> Iterator[tuple[int, int, int]]:
    """Of each block the channels, and the side of its maps before and after pooling."""
    size = image_size
    for channels in CHANNELS:
        pooled = (size - 2) // pool_stride + 1
        yield channels, size, pooled
        size = pooled


def weights_of(pool_stride: int, image_size: int) -> int:
    """How many trainable numbers the network has."""
    with torch.device("meta"):
        return n_weights(EmotionCNN(0.0, pool_stride, image_size))


@dataclass(frozen=True, slots=True)
class Needs:
    """What trials of one network need of a device.

    Attributes:
        n_weights: of the network.
        image_bytes: memory that each image of a batch takes.
        memory: bytes that are there for a trial.
        captures: whether steps are captured: what a captured one works in is its own for good, so that the smaller last
            batch, which isn't captured, and validation need room beside it.
        n_images: for training.
        validation_bytes: what validation takes.
    """

    n_weights: int
    image_bytes: float
    memory: float
    captures: bool = False
    n_images: int = 0
    validation_bytes: float = 0.0

    def fixed(self, one: Hyperparameters) -> int:
        """Memory that a trial takes whatever its batch: weights, gradients, optimizer, and copies to be kept."""
        state = optimizers.OPTIMIZERS[one.optimizer].state_tensors
        copies = 1 + 2 * (1 + state)  # the best weights, and twice all that a checkpoint holds: the last, the next one
        gradients = 2 if self.captures else 1  # those of the last batch are others
        return self.n_weights * WEIGHT_BYTES * (1 + gradients + state + copies)

    def whole(self, one: Hyperparameters) -> float:
        """Memory that a trial takes whose batches are not split."""
        return self._in_parts_of(one.batch_size, one)

    def _in_parts_of(self, n: int, one: Hyperparameters) -> float:
        """Memory that a trial takes whose batches are split into parts of so many images."""
        last = min(n, self.n_images % one.batch_size)
        beside = max(last * self.image_bytes, self.validation_bytes) if self.captures else 0.0
        return n * self.image_bytes + beside + self.fixed(one)

    def checkpoint(self, one: Hyperparameters) -> int:
        """Bytes of a checkpoint: weights and the optimizer's state; and the best epoch's weights."""
        return self.n_weights * WEIGHT_BYTES * (2 + optimizers.OPTIMIZERS[one.optimizer].state_tensors)

    def n_parts(self, one: Hyperparameters) -> int:
        """Into how many equal parts a batch must be split so that each fits: 1 where it fits whole."""
        fits = (n for n in range(one.batch_size, 1, -1) if self._in_parts_of(n, one) <= self.memory)
        return math.ceil(one.batch_size / next(fits, 1))

    def refuse_too_much(self, one: Hyperparameters) -> None:
        """Raises ValueError where not even a part of two images fits."""
        least = self._in_parts_of(2, one)
        if least > self.memory:
            need, there = f"{least / 1e9:.1f} GB", f"{self.memory / 1e9:.1f} GB"
            raise ValueError(f"optimizer {one.optimizer} needs {need} of memory for any batch, {there} are there")


def step_seconds(steps: Steps, n_images: int, stop: Stop) -> float:
    """What a step on so many images takes: the best of two and more, since the first also allocates.

    More, up to eight, are made within a second: beside other work some steps take many times as long.
    """
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < 2 or (len(seconds) < 8 and time.perf_counter() - begun < 1 and not stop()):
        began = time.perf_counter()
        steps.epoch(torch.arange(n_images), stop)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def cheapest_and_dearest(candidates: Sequence[Hyperparameters]) -> tuple[Hyperparameters, Hyperparameters]:
    """Those whose epoch takes least and most: larger batches make fewer steps, and an optimizer's state takes time."""

    def dear(one: Hyperparameters) -> tuple[int, int]:
        return -one.batch_size, optimizers.OPTIMIZERS[one.optimizer].state_tensors

    return min(candidates, key=dear), max(candidates, key=dear)
