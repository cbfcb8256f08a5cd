"""The studies that come with the project say what they search."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.loading import known_studies, load_spec
from hpo.space import walk
from model.hyperparameters import Hyperparameters
from model.optimizers import OPTIMIZERS
from studies import fer, table2


@pytest.mark.parametrize("name", sorted(known_studies()))
def test_every_study_bears_its_files_name_and_suggests_what_can_be_trained(name):
    spec = load_spec(name)

    assert spec.name == name
    for corner in ("low", "middle", "high"):
        for branch in walk(spec.suggest, corner):
            Hyperparameters(**branch.params)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_suggested_params_lie_in_the_space(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))

    params = fer.STUDY.suggest(study.ask())

    reference = OPTIMIZERS[params["optimizer"]].reference_rate
    assert reference / 30.001 <= params["learning_rate"] <= reference * 30.001
    assert params["batch_size"] in {32, 64, 128, 256, 512}
    assert 20 <= params["epochs"] <= 200
    assert 0 <= params["dropout"] <= 0.6


def test_fer_tries_the_papers_configuration_first():
    trial = optuna.trial.FixedTrial(dict(fer.STUDY.enqueue[0]))

    assert fer.STUDY.suggest(trial) == {
        "optimizer": "sgd", "learning_rate": 0.05, "batch_size": 128, "epochs": 200, "dropout": 0.2,
    }  # fmt: skip
    assert (fer.STUDY.n_trials, fer.STUDY.n_epochs, fer.STUDY.scheduler) == (None, 4_000, "auto")


def test_table2_is_the_papers_four_rows_with_one_learning_rate():
    rows = [branch.params for branch in walk(table2.STUDY.suggest)]

    assert {(r["epochs"], r["optimizer"]) for r in rows} == set(table2.PAPER)
    assert {(r["learning_rate"], r["batch_size"], r["dropout"]) for r in rows} == {(0.05, 128, 0.2)}
    assert table2.STUDY.value == "last"


def test_table2_prints_its_numbers_beside_the_papers():
    trial = optuna.trial.create_trial(
        value=0.61, params={"epochs": 200, "optimizer": "sgd"},
        distributions={
            "epochs": optuna.distributions.CategoricalDistribution((100, 200)),
            "optimizer": optuna.distributions.CategoricalDistribution(("sgd", "adam")),
        },
    )  # fmt: skip
    lines = list(table2.compare([trial]))

    assert lines[2].split() == ["200", "sgd", "60.20%", "61.00%"]
    assert lines[1].split() == ["100", "sgd", "58.58%", "-"]
