"""The numbers that a trial leaves for people: history, confusion matrix, hyperparameters."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from data.files import write_whole
from model.evaluation import Confusion, per_class
from model.hyperparameters import Hyperparameters


def write_artifacts(
    folder: Path,
    hyperparameters: Hyperparameters,
    history: Sequence[dict[str, float]],
    confusion: Confusion | None,
    best_epoch: int,
    class_names: Sequence[str],
) -> None:
    """Write hyperparameters.json, history.csv and confusion_matrix.json; `pictures.draw` makes pictures of them.

    Args:
        folder: made where it is missing.
        hyperparameters: of the trial.
        history: its metrics by epoch, at least one.
        confusion: int64 [K, K] on the validation split, at the best epoch; None where it was not kept.
        best_epoch: from 0.
        class_names: K names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "hyperparameters.json", json.dumps(asdict(hyperparameters), indent=2).encode())
    frame = pd.DataFrame(history)
    frame.insert(0, "epoch", range(len(frame)))
    write_whole(folder / "history.csv", frame.to_csv(index=False).encode())
    if confusion is None:
        (folder / "confusion_matrix.json").unlink(missing_ok=True)
        return
    figures = {
        "split": "validation",
        "epoch": best_epoch,
        "class_names": list(class_names),
        "matrix": confusion.tolist(),
        "per_class": per_class(confusion, class_names),
    }
    write_whole(folder / "confusion_matrix.json", json.dumps(figures, indent=2).encode())
