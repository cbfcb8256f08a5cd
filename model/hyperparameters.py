"""The typed value that a trial's params become: every number that training needs, with its unit and range."""

import math
from dataclasses import dataclass, fields

from model.optimizers import OPTIMIZERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What a training run is made with.

    Attributes:
        learning_rate: per update, before decay; in (0, 1e3].
        batch_size: images per update; in [1, 65,536]. The last batch of an epoch may be smaller.
        epochs: passes over the training images; in [1, 100,000].
        dropout: share of activations zeroed after each block; in [0, 1).
        optimizer: one of `OPTIMIZERS`.
        lr_decay: inverse-time decay per update, lr / (1 + lr_decay · updates), as Keras's SGD had it; in [0, 1].
        weight_decay: in [0, 1]; decoupled for adamw, L2 for the others.

    Source: the paper's section on training: batch size 128, 200 epochs, SGD, 0.05, "decay 1e-5 after each update".

    Raises:
        ValueError: values of the wrong type or out of range; the message names all of them.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    dropout: float
    optimizer: str
    lr_decay: float = 1e-5
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        faults = [
            *_outside("learning_rate", self.learning_rate, 0, 1e3, kind=float, low_open=True),
            *_outside("batch_size", self.batch_size, 1, 65_536, kind=int),
            *_outside("epochs", self.epochs, 1, 100_000, kind=int),
            *_outside("dropout", self.dropout, 0, 1, kind=float, high_open=True),
            *_outside("lr_decay", self.lr_decay, 0, 1, kind=float),
            *_outside("weight_decay", self.weight_decay, 0, 1, kind=float),
        ]
        if self.optimizer not in OPTIMIZERS:
            faults.append(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if faults:
            raise ValueError("; ".join(faults))


def unknown_names(params: dict[str, object]) -> list[str]:
    """Params that are no field of `Hyperparameters`."""
    known = {field.name for field in fields(Hyperparameters)}
    return sorted(set(params) - known)


def missing_names(params: dict[str, object]) -> list[str]:
    """Fields without a default that the params lack."""
    needed = [field.name for field in fields(Hyperparameters) if field.name not in {"lr_decay", "weight_decay"}]
    return [name for name in needed if name not in params]


def _outside(
    name: str, value: object, low: float, high: float, *, kind: type, low_open: bool = False, high_open: bool = False
) -> list[str]:
    allowed = f"in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
    if isinstance(value, bool) or not isinstance(value, (int,) if kind is int else (int, float)):
        return [f"{name} must be {'a whole' if kind is int else 'a'} number {allowed}, got {value!r}"]
    number = float(value)
    good = math.isfinite(number) and low <= number <= high
    if not good or (low_open and number == low) or (high_open and number == high):
        return [f"{name} must be {allowed}, got {value!r}"]
    return []
