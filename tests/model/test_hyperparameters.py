import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.hyperparameters import Hyperparameters
from model.optimizers import OPTIMIZERS, decayed

GOOD = {"learning_rate": 0.05, "batch_size": 128, "epochs": 200, "dropout": 0.2, "optimizer": "sgd"}


def test_the_fixed_ones_are_the_papers():
    made = Hyperparameters(**GOOD)

    assert (made.lr_decay, made.weight_decay) == (1e-5, 0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0), ("learning_rate", math.nan), ("learning_rate", "0.1"), ("batch_size", 0),
        ("batch_size", 1.5), ("batch_size", True), ("epochs", 0), ("dropout", 1.0), ("dropout", -0.1),
        ("optimizer", "lion"), ("lr_decay", -1), ("weight_decay", math.inf),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named_with_what_is_allowed(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got"):
        Hyperparameters(**{**GOOD, name: value})


def test_all_faults_are_told_at_once():
    with pytest.raises(ValueError, match=r"learning_rate.*epochs.*optimizer"):
        Hyperparameters(**{**GOOD, "learning_rate": -1, "epochs": 0, "optimizer": "x"})


@given(
    st.floats(1e-6, 1e3), st.integers(1, 65_536), st.integers(1, 100_000), st.floats(0, 0.999),
    st.sampled_from(sorted(OPTIMIZERS)),
)  # fmt: skip
def test_everything_in_range_is_accepted(rate, batch_size, epochs, dropout, optimizer):
    Hyperparameters(learning_rate=rate, batch_size=batch_size, epochs=epochs, dropout=dropout, optimizer=optimizer)


def test_the_learning_rate_decays_as_keras_had_it():
    assert decayed(0.05, 1e-5, 0) == 0.05
    assert decayed(0.05, 1e-5, 100_000) == pytest.approx(0.025)
