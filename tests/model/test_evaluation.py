import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from model.evaluation import accuracy, macro_f1, per_class, precision_recall_f1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60))
def test_figures_are_those_of_scikit_learn(pairs):
    true, predicted = zip(*pairs, strict=True)
    confusion = confusion_matrix(true, predicted, labels=range(7))

    expected = precision_recall_fscore_support(true, predicted, labels=range(7), zero_division=0)

    assert accuracy(confusion) == pytest.approx(accuracy_score(true, predicted))
    assert np.allclose(precision_recall_f1(confusion), np.stack(expected[:3], axis=1))
    assert macro_f1(confusion) == pytest.approx(expected[2].mean())


def test_support_counts_the_images_of_a_class():
    confusion = np.array([[3, 1], [0, 2]])

    assert per_class(confusion, ("a", "b"))["a"] == {"precision": 1.0, "recall": 0.75, "f1": 6 / 7, "support": 4}
