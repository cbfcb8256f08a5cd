"""What a model sees of configurations: what matters, on one scale, whatever it is called."""

import math

import numpy as np
import pytest

from hpo.coordinates import Coordinates


def plain(trial):
    return {
        "x": trial.suggest_float("x", 1e-3, 10.0, log=True),
        "kind": trial.suggest_categorical("kind", ["a", "b"]),
        "size": trial.suggest_categorical("size", [32, 64, 128, 256, 512]),
    }


def test_numbers_lie_on_their_own_scale_and_choices_one_apart():
    points = Coordinates(plain).encode([
        {"x": 1e-3, "kind": "a", "size": 32}, {"x": 0.1, "kind": "b", "size": 128}, {"x": 10.0, "kind": "b", "size": 512},
    ])  # fmt: skip

    assert np.allclose(points[:, 0], [0, 0.5, 1])
    assert math.isclose(np.linalg.norm(points[0, 1:3] - points[1, 1:3]), 1.0)
    assert np.allclose(points[:, 3], [0, 0.5, 1])


def test_a_param_that_a_branch_lacks_is_in_the_middle_and_said_to_be_missing():
    def conditional(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return {"m": trial.suggest_float("m", 0, 1) if kind == "b" else None}

    points = Coordinates(conditional).encode([{"kind": "a"}, {"kind": "b", "m": 0.5}])

    assert points[0, 2] == points[1, 2] == 0.5
    assert points[0, 3] > 0
    assert points[1, 3] == 0


def rates(trial, optimizers=("sgd", "momentum", "adam")):
    return {
        "optimizer": trial.suggest_categorical("optimizer", optimizers),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
        "batch_size": trial.suggest_categorical("batch_size", (32, 64, 128, 256, 512)),
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # SGD's best rate grows with the batch, an adaptive optimizer's with its root, momentum's is SGD's by (1 - m).
        (("sgd", 0.01, 64), ("sgd", 0.02, 128)),
        (("adam", 0.001, 64), ("adam", 0.002, 256)),
        (("sgd", 0.1, 128), ("momentum", 0.01, 128)),
    ],
)
def test_learning_rates_that_suit_alike_look_alike(one, other):
    names = ("optimizer", "learning_rate", "batch_size")
    configurations = [dict(zip(names, values, strict=True)) for values in (one, other)]

    points = Coordinates(rates).encode(configurations)

    assert math.isclose(points[0, 3], points[1, 3], abs_tol=1e-9)


def test_momentum_that_is_searched_moves_the_rate():
    def searched(trial):
        return {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
            "momentum": trial.suggest_float("momentum", 0.1, 0.99),
        }

    points = Coordinates(searched).encode(
        [{"learning_rate": 0.01, "momentum": 0.9}, {"learning_rate": 0.05, "momentum": 0.5}]
    )

    assert math.isclose(points[0, 0], points[1, 0], abs_tol=1e-9)


def test_what_is_ignored_is_no_coordinate():
    assert Coordinates(plain, frozenset({"x"})).encode([{"x": 1.0, "kind": "a", "size": 64}]).shape == (1, 3)
