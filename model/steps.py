"""The steps of an epoch: what a trial's training is made of, and how they are run on each kind of device.

Legend: N images, B batch, S image size, K classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from model.augmentation import Augmentation, varied
from model.device import Compute
from model.evaluation import Confusion
from model.hyperparameters import Hyperparameters
from model.network import N_CLASSES, EmotionCNN
from model.optimizers import decayed, set_learning_rate, update

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class DeviceFaces:
    """Images of one split on the device: uint8 [N, S, S], labels int64 [N], and the normalisation of their values.

    Attributes:
        augmentation: how they are varied in training.
    """

    images: Tensor
    labels: Tensor
    mean: float
    std: float
    augmentation: Augmentation = "none"

    def batch(self, rows: Tensor, generator: torch.Generator) -> "DeviceFaces":
        """Those of `rows` int64 [B], varied."""
        images = varied(self.images, rows, self.augmentation, generator)
        return DeviceFaces(images, self.labels[rows], self.mean, self.std)

    def parts(self, n: int) -> Iterator["DeviceFaces"]:
        """All of them in `n` parts of equal size, to within one."""
        for images, labels in zip(self.images.tensor_split(n), self.labels.tensor_split(n), strict=True):
            yield DeviceFaces(images, labels, self.mean, self.std)


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while a network trains.

    Attributes:
        epoch: the epoch to train next, from 0.
        updates: optimizer steps so far.
        shuffling: CPU generator of the order of images.
        masks: generator of the dropout masks and of what varies images, on the device.
    """

    network: EmotionCNN
    optimizer: Optimizer
    shuffling: torch.Generator
    masks: torch.Generator
    epoch: int = 0
    updates: int = 0
    confusion: Confusion = field(default_factory=lambda: np.zeros((N_CLASSES, N_CLASSES), np.int64))


@dataclass(frozen=True, slots=True)
class Sums:
    """Of an epoch's training: the images' losses, and how many were hit."""

    loss: float
    hits: int


class Steps(Protocol):
    """Runs the steps of one trial, from its state on."""

    def epoch(self, order: Tensor, stop: Stop) -> Sums | None:
        """Train on the images `order` int64 [n], batch by batch; None where it was stopped.

        `stop` is asked before every batch. The last batch may be smaller: every image counts.
        """
        ...


def make_steps(
    state: TrainingState, faces: DeviceFaces, hyperparameters: Hyperparameters, compute: Compute, n_parts: int = 1
) -> Steps:
    """The fastest steps there are for a device: the same training, with other dropout masks and roundings.

    Args:
        state: of the trial.
        faces: of the training split.
        hyperparameters: of the trial.
        compute: how.
        n_parts: into how many a batch is split, one after another, where it does not fit into memory: their gradients
            are summed before the update. Batch norm sees a part.
    """
    if compute.captures:
        from model.captured import CapturedSteps  # triton is there with a CUDA build of torch only

        return CapturedSteps(state, faces, hyperparameters, compute, n_parts)
    return PlainSteps(state, faces, hyperparameters, compute, n_parts)


def n_parts_of(n_images: int, batch_size: int, n_parts: int) -> int:
    """Into how many parts `n_images` of a batch are split, where a whole batch is split into `n_parts`."""
    return math.ceil(n_images / math.ceil(batch_size / n_parts))


@dataclass(frozen=True, slots=True)
class PlainSteps:
    """Steps as PyTorch's own operators run them."""

    state: TrainingState
    faces: DeviceFaces
    hyperparameters: Hyperparameters
    compute: Compute
    n_parts: int = 1

    def epoch(self, order: Tensor, stop: Stop) -> Sums | None:
        """See `Steps`. Reads the device once, at the end."""
        order = order.to(self.compute.device)
        loss_sum = torch.zeros((), device=self.compute.device)
        hits = torch.zeros((), dtype=torch.int64, device=self.compute.device)
        hyperparameters, optimizer = self.hyperparameters, self.state.optimizer
        for rows in torch.split(order, hyperparameters.batch_size):
            if stop():
                return None
            rate = decayed(hyperparameters.learning_rate, hyperparameters.lr_decay, self.state.updates)
            set_learning_rate(optimizer, rate)
            batch = self.faces.batch(rows, self.state.masks)
            n_parts = n_parts_of(len(rows), hyperparameters.batch_size, self.n_parts)
            loss, batch_hits = step(self.state.network, optimizer, batch, self.compute, n_parts)
            self.state.updates += 1
            loss_sum += loss * len(rows)
            hits += batch_hits
        return Sums(float(loss_sum), int(hits))


def step(
    network: EmotionCNN, optimizer: Optimizer, batch: DeviceFaces, compute: Compute, n_parts: int = 1
) -> tuple[Tensor, Tensor]:
    """One update on a batch, in so many parts; gives its mean loss and number of hits, both 0-d."""
    optimizer.zero_grad(set_to_none=True)
    losses, hits = [], []
    for part in batch.parts(n_parts):
        images = compute.normalised(part.images, part.mean, part.std)  # [B, 1, S, S]
        with compute.forward_context():
            logits = network(images)  # [B, K]
            loss = functional.cross_entropy(logits.float(), part.labels)
        if n_parts > 1:
            loss = loss * (len(part.labels) / len(batch.labels))
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == part.labels).sum())
    update(optimizer)
    return sum(losses[1:], losses[0]), sum(hits[1:], hits[0])
