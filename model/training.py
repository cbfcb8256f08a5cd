"""Training, as the paper's method section would tell it: a generator that yields one metrics mapping an epoch.

Legend: N images, B batch, S image size, K classes.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from model.device import Compute
from model.evaluation import Confusion, accuracy, macro_f1
from model.hyperparameters import Hyperparameters
from model.network import N_CLASSES, EmotionCNN
from model.optimizers import decayed, set_learning_rate

VALIDATION_BATCH = 256

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class DeviceFaces:
    """Images of one split on the device: uint8 [N, S, S], labels int64 [N], and the normalisation of their values."""

    images: Tensor
    labels: Tensor
    mean: float
    std: float


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while a network trains.

    Attributes:
        epoch: the epoch to train next, from 0.
        updates: optimizer steps so far.
        shuffling: CPU generator of the order of images.
        masks: generator of the dropout masks, on the device.
    """

    network: EmotionCNN
    optimizer: Optimizer
    shuffling: torch.Generator
    masks: torch.Generator
    epoch: int = 0
    updates: int = 0
    confusion: Confusion = field(default_factory=lambda: np.zeros((N_CLASSES, N_CLASSES), np.int64))


def train_epochs(
    state: TrainingState,
    training: DeviceFaces,
    validation: DeviceFaces,
    hyperparameters: Hyperparameters,
    compute: Compute,
    stop: Stop,
) -> Iterator[dict[str, float]]:
    """Train from `state.epoch` to the last epoch; after each, yield its metrics, with the state between two epochs.

    Ends early, without yielding the epoch that was begun, when `stop()` is true: it is asked before every batch, in
    training and validation. Ends after an epoch whose loss is not finite: such a network learns no more.

    Yields:
        train_loss and train_accuracy (means over the epoch's batches as they were trained), val_loss, val_accuracy,
        val_macro_f1 (all of the validation split), learning_rate (of the epoch's last update), images_per_second (in
        training), epoch_seconds. Accuracies in [0, 1].
    """
    while state.epoch < hyperparameters.epochs:
        began = time.perf_counter()
        trained = _train_one_epoch(state, training, hyperparameters, compute, stop)
        if trained is None:
            return
        loss, hits, learning_rate = trained
        seconds = time.perf_counter() - began
        diverged = not math.isfinite(loss)
        validated = (math.nan, state.confusion) if diverged else validate(state.network, validation, compute, stop)
        if validated is None:
            return
        state.epoch += 1
        state.confusion = validated[1]
        yield {
            "train_loss": loss,
            "train_accuracy": hits,
            "val_loss": validated[0],
            "val_accuracy": math.nan if diverged else accuracy(validated[1]),
            "val_macro_f1": math.nan if diverged else macro_f1(validated[1]),
            "learning_rate": learning_rate,
            "images_per_second": len(training.labels) / seconds,
            "epoch_seconds": time.perf_counter() - began,
        }
        if diverged or not math.isfinite(validated[0]):
            return


def _train_one_epoch(
    state: TrainingState, faces: DeviceFaces, hyperparameters: Hyperparameters, compute: Compute, stop: Stop
) -> tuple[float, float, float] | None:
    """Mean loss, accuracy and the last learning rate; None where it was stopped. Reads the device once, at the end."""
    state.network.train()
    n_images = len(faces.labels)
    order = torch.randperm(n_images, generator=state.shuffling).to(compute.device)
    loss_sum = torch.zeros((), device=compute.device)
    hits = torch.zeros((), dtype=torch.int64, device=compute.device)
    learning_rate = math.nan
    for rows in torch.split(order, hyperparameters.batch_size):  # the last batch may be smaller: every image counts
        if stop():
            return None
        learning_rate = decayed(hyperparameters.learning_rate, hyperparameters.lr_decay, state.updates)
        set_learning_rate(state.optimizer, learning_rate)
        loss, batch_hits = step(state.network, state.optimizer, faces, rows, compute)
        state.updates += 1
        loss_sum += loss * len(rows)
        hits += batch_hits
    return float(loss_sum) / n_images, int(hits) / n_images, learning_rate


def step(
    network: EmotionCNN, optimizer: Optimizer, faces: DeviceFaces, rows: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """One update on the images `rows` int64 [B]; gives the batch's mean loss and number of hits, both 0-d."""
    labels = faces.labels[rows]
    images = compute.normalised(faces.images[rows], faces.mean, faces.std)  # [B, 1, S, S]
    optimizer.zero_grad(set_to_none=True)
    with compute.forward_context():
        logits = network(images)  # [B, K]
        loss = functional.cross_entropy(logits.float(), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


@torch.inference_mode()
def validate(network: EmotionCNN, faces: DeviceFaces, compute: Compute, stop: Stop) -> tuple[float, Confusion] | None:
    """Mean loss and confusion matrix int64 [K, K] over all the faces; None where it was stopped."""
    network.eval()
    loss_sum = torch.zeros((), device=compute.device)
    counts = torch.zeros(N_CLASSES * N_CLASSES, dtype=torch.int64, device=compute.device)
    for start in range(0, len(faces.labels), VALIDATION_BATCH):
        if stop():
            return None
        block = slice(start, start + VALIDATION_BATCH)
        labels = faces.labels[block]
        with compute.forward_context():
            logits = network(compute.normalised(faces.images[block], faces.mean, faces.std))
            loss_sum += functional.cross_entropy(logits.float(), labels, reduction="sum")
        counts += torch.bincount(labels * N_CLASSES + logits.argmax(1), minlength=N_CLASSES * N_CLASSES)
    confusion = counts.view(N_CLASSES, N_CLASSES).cpu().numpy()
    return float(loss_sum) / len(faces.labels), confusion
