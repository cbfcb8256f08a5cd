"""Optimizers by name, and the learning rate's decay. A new optimizer is one more entry of `OPTIMIZERS`."""

from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

Factory = Callable[[Iterable[Parameter], float, float], Optimizer]
"""(weights, learning rate, weight decay) -> the optimizer."""

OPTIMIZERS: dict[str, Factory] = {
    "sgd": lambda weights, rate, decay: SGD(weights, lr=rate, weight_decay=decay, foreach=True),
    "momentum": lambda weights, rate, decay: SGD(
        weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, foreach=True
    ),
    "adam": lambda weights, rate, decay: Adam(weights, lr=rate, weight_decay=decay, foreach=True),
    "adamw": lambda weights, rate, decay: AdamW(weights, lr=rate, weight_decay=decay, foreach=True),
    "rmsprop": lambda weights, rate, decay: RMSprop(weights, lr=rate, weight_decay=decay, foreach=True),
}
"""`momentum` is Nesterov's with 0.9; the other constants are torch's defaults."""

STATE_TENSORS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2, "rmsprop": 1}
"""How many tensors of the size of the weights an optimizer keeps: what its checkpoint costs."""


def decayed(learning_rate: float, decay: float, updates: int) -> float:
    """The learning rate after some updates: learning_rate / (1 + decay · updates).

    Source: Keras's SGD of 2016 to 2019 (`decay`), which "decay 1e-5 after each update" of the paper names.
    """
    return learning_rate / (1 + decay * updates)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Give the optimizer this learning rate for its next update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def state_to(optimizer: Optimizer, device: torch.device) -> None:
    """Move what the optimizer remembers to the device of its weights."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                state[name] = value.to(device)
