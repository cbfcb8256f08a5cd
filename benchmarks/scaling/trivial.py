"""The trivial study: five params, twenty reports, no training."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.spec import StudySpec

EPOCHS = 20
NAME = "scale"


def suggest(trial: Any) -> dict[str, Any]:
    """Five suggests, of three kinds."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "momentum": trial.suggest_float("momentum", 0.0, 0.99),
        "batch_size": trial.suggest_int("batch_size", 16, 512, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "sgd", "rmsprop"]),
    }


def value_of(params: Mapping[str, Any], epoch: int) -> float:
    """A curve that rises towards what the params are worth."""
    worth = 1.0 - (params["dropout"] - 0.3) ** 2 - abs(params["momentum"] - 0.9)
    return float(worth - 1.0 / (epoch + 2))


class Trivial:
    """A trainer that trains nothing."""

    def train(self, params: Mapping[str, Any], *, seed: int, workdir: Path) -> Iterator[dict[str, float]]:  # noqa: ARG002
        for epoch in range(EPOCHS):
            yield {"val_accuracy": value_of(params, epoch)}

    def evaluate(self, workdir: Path, split: str) -> dict[str, float]:  # noqa: ARG002
        return {"accuracy": 0.0}


STUDY = StudySpec(
    name=NAME, suggest=suggest, prepare=lambda _: Trivial(), metric="val_accuracy", n_trials=None, keep_weights=0
)
