"""The pictures that a trial leaves for people: learning curve and confusion matrix."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from data.files import write_whole
from model.evaluation import Confusion


def draw(workdir: Path) -> None:
    """Draw artifacts/learning_curve.png and confusion_matrix.png from the numbers that a trial has left there, if any.

    Once it has ended: one that is paused a dozen times needs its pictures once. Loads no torch: it is not the trainer's
    process that draws.
    """
    folder = workdir / "artifacts"
    if not (folder / "history.csv").exists():
        return
    hyperparameters = json.loads((folder / "hyperparameters.json").read_text())
    history = pd.read_csv(folder / "history.csv")
    best_epoch = int(history["val_accuracy"].fillna(-1.0).to_numpy().argmax())
    title = f"{hyperparameters['optimizer']}, learning rate {hyperparameters['learning_rate']:.3g}"
    write_whole(folder / "learning_curve.png", _png(learning_curve(history, best_epoch, title)))
    if (folder / "confusion_matrix.json").exists():
        figures = json.loads((folder / "confusion_matrix.json").read_text())
        matrix = np.array(figures["matrix"], np.int64)
        write_whole(folder / "confusion_matrix.png", _png(confusion_figure(matrix, figures["class_names"])))


def learning_curve(history: pd.DataFrame, best_epoch: int, title: str) -> Figure:
    """Accuracy and loss of training and validation by epoch, as the paper's figures 4 to 7."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for split, label in (("train", "training"), ("val", "validation")):
            axes.plot(history["epoch"], history[f"{split}_{name}"], label=label, marker="o", markersize=3)
        axes.axvline(best_epoch, color="0.7", linewidth=1, linestyle="--", label="best epoch")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.suptitle(title)
    return figure


def confusion_figure(confusion: Confusion, class_names: Sequence[str]) -> Figure:
    """The confusion matrix with counts, shaded by the share of each true class."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the true class")
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right")
    axes.set_yticks(ticks, class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
