"""What a trained network gets right and wrong, and what its data are worth: sections and pictures of a report.

Legend: N faces, S pixels a side, K classes.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data.faces import Faces, image_digests
from data.faults import duplicate_faults, leaks
from data.files import write_whole
from model.evaluation import Confusion, accuracy, per_class
from model.exported import Classifier
from model.pictures import confusion_figure

N_WRONG = 24
_SPLIT = "validation"

Section = dict[str, Any]


def review(classifier: Classifier, faces: Faces, folder: Path) -> list[Section]:
    """Look at the network on the validation split.

    Args:
        classifier: the trained network.
        faces: that it was trained and validated on.
        folder: where pictures go; made where it is missing.

    Returns:
        Mappings of `title`, `text`, `columns`, `rows` and `pictures` (names of files in the folder).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = faces.splits[_SPLIT]
    labels = faces.labels[rows].astype(np.int64)
    probabilities = classifier.probabilities(np.asarray(faces.images[rows]))  # [N, K]
    n_classes = len(faces.class_names)
    cells = labels * n_classes + probabilities.argmax(1)
    confusion = np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)
    write_whole(folder / "confusion.png", _png(confusion_figure(confusion, faces.class_names)))
    return [
        _confusion(confusion, faces.class_names),
        *_most_wrong(faces, rows, labels, probabilities, folder),
        _data(faces, labels == probabilities.argmax(1)),
    ]


def _confusion(confusion: Confusion, names: Sequence[str]) -> Section:
    figures = per_class(confusion, names)
    hardest = min(figures, key=lambda name: figures[name]["f1"])
    return {
        "title": "What it confuses",
        "text": f"Of {confusion.sum()} validation faces it names {accuracy(confusion):.1%} rightly. The hardest class: "
        f"{hardest}.",
        "columns": ["class", "faces", "precision", "recall", "F1"],
        "rows": [
            [name, int(one["support"]), *(f"{one[figure]:.3f}" for figure in ("precision", "recall", "f1"))]
            for name, one in figures.items()
        ],
        "pictures": ["confusion.png"],
    }


def _most_wrong(
    faces: Faces, rows: NDArray[np.int64], labels: NDArray[np.int64], probabilities: NDArray[np.float32], folder: Path
) -> list[Section]:
    """The faces whose wrong class is given the highest probability: a contested label, often."""
    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != labels)
    worst = wrong[np.argsort(-probabilities[wrong, guesses[wrong]], kind="stable")][:N_WRONG]
    if not len(worst):
        return []
    n_columns = min(8, len(worst))
    n_rows = -(-len(worst) // n_columns)
    figure = Figure(figsize=(1.25 * n_columns, 1.75 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, position in zip(grid.flat, worst, strict=False):
        axes.imshow(faces.images[rows[position]], cmap="gray", vmin=0, vmax=255)
        guess, true = faces.class_names[guesses[position]], faces.class_names[labels[position]]
        axes.set_title(f"{guess} {probabilities[position, guesses[position]]:.0%}\nlabel: {true}", fontsize=7)
    write_whole(folder / "most_wrong.png", _png(figure))
    text = "Validation faces that it is surest of, against their labels. Of many the label is what one would contest."
    return [{"title": "Most confidently wrong", "text": text, "pictures": ["most_wrong.png"]}]


def _data(faces: Faces, hits: NDArray[np.bool_]) -> Section:
    """Copies, contradictions and leaks, and what the accuracy is without the leaked faces."""
    used = np.unique(np.concatenate(list(faces.splits.values())))
    digests = image_digests(faces.images[used])
    found = duplicate_faults(digests, faces.labels[used])
    place = {int(row): i for i, row in enumerate(used)}
    trained = np.array([place[int(row)] for row in faces.splits["train"]], np.int64)
    table: list[list[Any]] = [
        ["surplus exact copies of an image", found.surplus],
        ["groups of equal images with different labels", found.contradictory],
    ]
    for split, rows in faces.splits.items():
        if split != "train":
            others = np.array([place[int(row)] for row in rows], np.int64)
            n_leaks = leaks(digests, trained, others)
            table.append(
                [f"{split} images that training also holds", f"{n_leaks} of {len(rows)} ({n_leaks / len(rows):.1%})"]
            )
    known = {digests[i] for i in trained}
    clean = np.array([digests[place[int(row)]] not in known for row in faces.splits[_SPLIT]])
    text = f"The data: {faces.name}, split {faces.split_name}, {faces.source}."
    if clean.any() and not clean.all():
        text += (
            f" On the {clean.sum()} validation faces that training lacks, accuracy is {hits[clean].mean():.2%}; "
            f"on all of them {hits.mean():.2%}."
        )
    return {"title": "Faults of the data", "text": text, "columns": ["fault", "images"], "rows": table}


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
