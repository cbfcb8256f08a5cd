"""Where a trial begins: first weights, optimizer, and its streams of randomness, from a seed alone."""

import hashlib

import torch

from model import optimizers
from model.device import Compute
from model.hyperparameters import Hyperparameters
from model.network import EmotionCNN, build_network, empty_network
from model.steps import TrainingState


def fresh_state(
    hyperparameters: Hyperparameters,
    seed: int,
    pool_stride: int,
    image_size: int,
    compute: Compute,
    *,
    weights: bool = True,
) -> TrainingState:
    """The state of a trial before its first step, on the device.

    Args:
        hyperparameters: of the trial.
        seed: of first weights, order of images, and masks with what varies images, each its own stream.
        pool_stride: of the network: 1 as published, 2 for the compact one.
        image_size: S, pixels a side.
        compute: where and how.
        weights: whether to draw the first weights; else they are whatever, to be loaded.
    """
    masks = compute.generator(stream_seed(seed, "dropout"))
    drawn = stream_seed(seed, "weights") if weights else None
    network = fresh_network(hyperparameters.dropout, drawn, pool_stride, image_size, compute, masks)
    kind = optimizers.OPTIMIZERS[hyperparameters.optimizer]
    return TrainingState(
        network=network,
        optimizer=kind.make(
            network.parameters(),
            hyperparameters.learning_rate,
            hyperparameters.weight_decay,
            captured=compute.captures,
        ),
        shuffling=torch.Generator().manual_seed(stream_seed(seed, "shuffling")),
        masks=masks,
    )


def fresh_network(
    dropout: float,
    drawn: int | None,
    pool_stride: int,
    image_size: int,
    compute: Compute,
    masks: torch.Generator | None,
) -> EmotionCNN:
    """The network on the device, its first weights from the seed `drawn`, or whatever; `masks` draws its dropout."""
    if drawn is None:
        network = empty_network(dropout, pool_stride, image_size, masks, compute.device)
    else:
        weights = torch.Generator().manual_seed(drawn)
        network = build_network(
            dropout=dropout, pool_stride=pool_stride, image_size=image_size, weights=weights, masks=masks
        )
    return network.to(compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload,no-any-return]


def stream_seed(seed: int, stream: str) -> int:
    """The seed of one named stream of a trial's randomness, in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little") >> 1
