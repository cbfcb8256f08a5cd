"""Training, as the paper's method section would tell it: a generator that yields one metrics mapping an epoch.

Legend: N images, B batch, S image size, K classes.
"""

import math
import time
from collections.abc import Iterator

import torch
from torch.nn import functional

from model.device import Compute
from model.evaluation import Confusion, accuracy, macro_f1
from model.hyperparameters import Hyperparameters
from model.network import N_CLASSES, EmotionCNN
from model.optimizers import decayed
from model.steps import DeviceFaces, Stop, TrainingState, make_steps


def train_epochs(
    state: TrainingState,
    training: DeviceFaces,
    validation: DeviceFaces,
    hyperparameters: Hyperparameters,
    compute: Compute,
    stop: Stop,
    n_parts: int = 1,
) -> Iterator[dict[str, float]]:
    """Train from `state.epoch` to the last epoch; after each, yield its metrics, with the state between two epochs.

    Ends early, without yielding the epoch that was begun, when `stop()` is true: it is asked before every batch, in
    training and validation. Ends after an epoch whose loss is not finite: such a network learns no more.

    `n_parts`: see `steps.make_steps`.

    Yields:
        train_loss and train_accuracy (means over the epoch's batches as they were trained), val_loss, val_accuracy,
        val_macro_f1 (all of the validation split), learning_rate (of the epoch's last update), images_per_second (in
        training), epoch_seconds. Accuracies in [0, 1].
    """
    n_images = len(training.labels)
    steps = make_steps(state, training, hyperparameters, compute, n_parts)
    while state.epoch < hyperparameters.epochs:
        began = time.perf_counter()
        state.network.train()
        with compute.denormals_off():
            sums = steps.epoch(torch.randperm(n_images, generator=state.shuffling), stop)
        if sums is None:
            return
        loss = sums.loss / n_images
        seconds = time.perf_counter() - began
        diverged = not math.isfinite(loss)
        validated = (math.nan, state.confusion) if diverged else validate(state.network, validation, compute, stop)
        if validated is None:
            return
        diverged = not math.isfinite(validated[0])  # of the last update, perhaps: its logits have no greatest
        state.epoch += 1
        state.confusion = validated[1]
        yield {
            "train_loss": loss,
            "train_accuracy": sums.hits / n_images,
            "val_loss": validated[0],
            "val_accuracy": math.nan if diverged else accuracy(validated[1]),
            "val_macro_f1": math.nan if diverged else macro_f1(validated[1]),
            "learning_rate": decayed(hyperparameters.learning_rate, hyperparameters.lr_decay, state.updates - 1),
            "images_per_second": n_images / seconds,
            "epoch_seconds": time.perf_counter() - began,
        }
        if diverged:
            return


@torch.inference_mode()
def validate(network: EmotionCNN, faces: DeviceFaces, compute: Compute, stop: Stop) -> tuple[float, Confusion] | None:
    """Mean loss and confusion matrix int64 [K, K] over all the faces; None where it was stopped."""
    network.eval()
    loss_sum = torch.zeros((), device=compute.device)
    counts = torch.zeros(N_CLASSES * N_CLASSES, dtype=torch.int64, device=compute.device)
    for start in range(0, len(faces.labels), compute.validation_batch):
        if stop():
            return None
        block = slice(start, start + compute.validation_batch)
        labels = faces.labels[block]
        with compute.forward_context():
            logits = network(compute.normalised(faces.images[block], faces.mean, faces.std))
            loss_sum += functional.cross_entropy(logits.float(), labels, reduction="sum")
        counts.index_add_(0, labels * N_CLASSES + logits.argmax(1), torch.ones_like(labels))  # bincount asks the host
    confusion = counts.view(N_CLASSES, N_CLASSES).cpu().numpy()
    return float(loss_sum) / len(faces.labels), confusion
