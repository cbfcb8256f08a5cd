"""What a trial has behind it, and its whole state as a checkpoint holds it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model import optimizers
from model.checkpoint import Payload
from model.steps import TrainingState

METRIC = "val_accuracy"
"""Whose highest epoch gives the best weights."""


@dataclass(slots=True)
class Progress:
    """What a trial has behind it, beside its `TrainingState`: metrics by epoch, and the best epoch's findings."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_confusion: list[list[int]] = field(default_factory=list)

    def diverged(self) -> bool:
        """Whether the last epoch's losses say that there is nothing more to learn."""
        last = self.history[-1] if self.history else {}
        return not all(math.isfinite(value) for name, value in last.items() if name.endswith("loss"))

    def add(self, metrics: dict[str, float], state: TrainingState) -> None:
        """Take in an epoch that was just trained."""
        self.history.append(metrics)
        best = self.history[self.best_epoch][METRIC] if self.best_epoch >= 0 else -math.inf
        if metrics[METRIC] > best or self.best_epoch < 0:
            self.best_epoch = len(self.history) - 1
            self.best_weights = {name: t.detach().clone() for name, t in state.network.state_dict().items()}
            self.best_confusion = state.confusion.tolist()

    def first(self, epochs: int) -> "Progress":
        """What there was after fewer epochs; without the best epoch's weights where that epoch came later."""
        if epochs >= len(self.history):
            return self
        history = self.history[:epochs]
        best_epoch = max(range(epochs), key=lambda epoch: (history[epoch][METRIC], -epoch))
        if best_epoch == self.best_epoch:
            return Progress(history, best_epoch, self.best_weights, self.best_confusion)
        return Progress(history, best_epoch)


def snapshot(state: TrainingState, progress: Progress, fingerprint: str, n_parts: int) -> Payload:
    """A copy of everything that the rest of the training depends on, as it is between two epochs."""
    return {
        "fingerprint": fingerprint,
        "network": _cloned(state.network.state_dict()),
        "optimizer": _cloned(state.optimizer.state_dict()),
        "shuffling": state.shuffling.get_state(),
        "masks": state.masks.get_state(),
        "epoch": state.epoch,
        "updates": state.updates,
        "history": list(progress.history),
        "best_epoch": progress.best_epoch,
        "best_confusion": progress.best_confusion,
        "threads": torch.get_num_threads(),
        "n_parts": n_parts,
    }


def restore(payload: Payload, best_weights: dict[str, Tensor], state: TrainingState, progress: Progress) -> None:
    """Put what `snapshot` gave into a fresh state and progress."""
    state.network.load_state_dict(payload["network"])
    state.optimizer.load_state_dict(payload["optimizer"])
    optimizers.state_to(state.optimizer, next(state.network.parameters()).device)
    state.shuffling.set_state(payload["shuffling"])
    state.masks.set_state(payload["masks"])
    state.epoch, state.updates = payload["epoch"], payload["updates"]
    progress.history = payload["history"]
    progress.best_epoch, progress.best_confusion = payload["best_epoch"], payload["best_confusion"]
    progress.best_weights = best_weights


def _cloned(value: Any) -> Any:
    """A deep copy of nested dicts and lists in which tensors are cloned, layout kept."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _cloned(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cloned(inner) for inner in value)
    return value
