"""Figures of a classifier, all from one confusion matrix.

Legend: K classes. Rows of a confusion matrix are true classes, columns are predicted ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.int64]


def accuracy(confusion: Confusion) -> float:
    """Share of right predictions, in [0, 1], of counts int64 [K, K]."""
    return float(np.trace(confusion) / confusion.sum())


def precision_recall_f1(confusion: Confusion) -> NDArray[np.float64]:
    """Precision, recall and F1 of each class, float64 [K, 3], each in [0, 1]; 0 where a ratio is 0 / 0."""
    right = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(right), where=both > 0)
    return np.stack([precision, recall, f1], axis=1)


def macro_f1(confusion: Confusion) -> float:
    """Mean of the classes' F1, in [0, 1]: the rare class counts as much as the frequent one."""
    return float(precision_recall_f1(confusion)[:, 2].mean())


def per_class(confusion: Confusion, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of each class by name, with `support`, its number of images."""
    figures = precision_recall_f1(confusion)
    return {
        name: {
            "precision": float(figures[k, 0]),
            "recall": float(figures[k, 1]),
            "f1": float(figures[k, 2]),
            "support": int(confusion[k].sum()),
        }
        for k, name in enumerate(class_names)
    }
