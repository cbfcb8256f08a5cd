"""What scripts and notebooks get of a study: a table, the best trial, its weights; a mistake is one clear line."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from safetensors.numpy import save_file

from hpo import load_study
from hpo.errors import UserError
from hpo.outbox import PARENT, open_outbox
from hpo.storage import open_store


def make_study(folder: Path, name: str = "toy", direction: str = "maximize") -> optuna.Study:
    """A study as `hpo.run` leaves it, of three trials; the second is the best, the third was interrupted."""
    store = open_store(f"sqlite:///{folder / 'hpo.db'}")
    study = optuna.create_study(study_name=name, storage=store.storage, direction=direction)
    study.set_user_attr("hpo.study_id", "f" * 32)
    study.set_user_attr("hpo.facts", {"metric": "score", "value": "best"})
    for number, (value, state) in enumerate([(0.1, "COMPLETE"), (0.4, "COMPLETE"), (None, "RUNNING")]):
        params = {"rate": 0.25 * (number + 1)}
        study.add_trial(
            create_trial(
                state=TrialState[state], value=value, params=params, distributions={"rate": FloatDistribution(0, 1)},
                user_attrs={"hpo.params": {"learning_rate": params["rate"] / 10, "value": 7}, "hpo.seconds": 1.5},
                intermediate_values={0: 0.0, 1: 0.1},
            )
        )  # fmt: skip
    weights = folder / "trials" / name / "1" / "weights"
    weights.mkdir(parents=True)
    (folder / "trials" / name / ".study_id").write_text("f" * 32)
    save_file({"layer": np.arange(6, dtype=np.float32).reshape(2, 3)}, weights / "best.safetensors")
    return study


def loaded(folder: Path, name: str = "toy"):
    return load_study(name, storage=f"sqlite:///{folder / 'hpo.db'}", workdir=folder / "trials")


def test_trials_are_a_table_with_their_params_as_columns(tmp_path):
    make_study(tmp_path)

    trials = loaded(tmp_path).trials

    assert list(trials.columns) == [
        "number", "state", "value", "rate", "learning_rate", "params.value",
        "seconds", "n_epochs", "mlflow_run_id", "reason", "started", "ended",
    ]  # fmt: skip
    assert trials["state"].tolist() == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert trials["rate"].tolist() == [0.25, 0.5, 0.75]
    assert trials["n_epochs"].tolist() == [2, 2, 2]
    assert trials["seconds"].sum() == 4.5
    assert math.isnan(trials["value"][2])


def test_the_best_model_is_two_lines_away(tmp_path):
    make_study(tmp_path)

    study = loaded(tmp_path)
    weights = study.best_weights()

    assert weights["layer"].shape == (2, 3)
    assert (study.best.number, study.best.value) == (1, 0.4)
    assert study.best.params["learning_rate"] == 0.05
    assert study.best.path == tmp_path / "trials/toy/1/weights/best.safetensors"
    assert study.best.weights == (study.best.path,)


def test_weights_of_another_kind_are_said_to_be_so(tmp_path):
    make_study(tmp_path)
    file = tmp_path / "trials/toy/1/weights/best.safetensors"
    file.rename(file.with_suffix(".json"))

    best = loaded(tmp_path).best

    assert best.weights == (file.with_suffix(".json"),)
    with pytest.raises(UserError, match="none of its weights' files is .safetensors"):
        _ = best.path


def test_the_best_of_a_study_that_minimizes_is_the_least_and_its_missing_weights_are_told(tmp_path):
    make_study(tmp_path, direction="minimize")

    study = loaded(tmp_path)

    assert study.best.number == 0
    assert study.best.weights == ()
    with pytest.raises(UserError, match="trial 0 is the best, but its weights are not here"):
        study.best_weights()


def test_weights_of_another_study_of_the_same_name_are_not_taken(tmp_path):
    make_study(tmp_path)
    (tmp_path / "trials/toy/.study_id").write_text("0" * 32)

    assert loaded(tmp_path).best.weights == ()


def test_a_run_that_the_trial_does_not_know_of_is_found_in_the_outbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = make_study(tmp_path)
    study._storage.set_trial_user_attr(study.trials[2]._trial_id, "mlflow.run_id", "own")
    outbox = open_outbox(tmp_path / "outbox", "f" * 32)
    outbox.set_run_id("0", "delivered", "sqlite:///mlflow.db")
    outbox.set_run_id(PARENT, "parent", "sqlite:///mlflow.db")

    found = loaded(tmp_path).trials["mlflow_run_id"].tolist()

    assert [found[0], found[2]] == ["delivered", "own"]
    assert not isinstance(found[1], str)


def test_a_mistake_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"hpo\.db.*no such store"):
        loaded(tmp_path)
    make_study(tmp_path)
    with pytest.raises(UserError, match="no study 'toi' in .*; did you mean toy\\?"):
        loaded(tmp_path, "toi")
    (tmp_path / "trials/toy/1/weights/best.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"best\.safetensors: not whole"):
        loaded(tmp_path).best_weights()


def test_a_study_without_a_value_has_no_best(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'hpo.db'}")
    optuna.create_study(study_name="empty", storage=store.storage)

    study = loaded(tmp_path, "empty")

    assert len(study.trials) == 0
    assert "mlflow_run_id" in study.trials.columns
    with pytest.raises(UserError, match="no trial has a value yet"):
        study.best_weights()


def test_the_package_itself_loads_nothing_and_a_loaded_study_no_torch():
    code = (
        "import sys, hpo; before = set(sys.modules); from hpo import load_study\n"
        "heavy = {'optuna', 'pandas', 'numpy', 'mlflow', 'torch'}; print(*heavy & before); print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.split("\n")[:2]

    assert before == ""
    assert not {"torch", "mlflow"} & set(after.split())


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import hpo

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hpo.nothing  # noqa: B018
