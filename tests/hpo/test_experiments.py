"""What is asked of a study's experiment as a whole."""

import pytest

from hpo.errors import HpoError
from hpo.experiments import experiment_of, fetch_weights
from hpo.tracking import MlflowClient


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_question_makes_no_store(uri, tmp_path):
    assert experiment_of(uri, "toy") is None
    assert list(tmp_path.iterdir()) == []


def test_weights_that_another_machine_has_trained_are_fetched_from_their_run(uri, tmp_path):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("toy", artifact_location=str(tmp_path / "artifacts"))
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    for number, study_id in ((3, "another"), (3, "ours"), (4, "ours")):
        run = client.create_run(experiment, tags={"hpo.study_id": study_id, "optuna.trial_number": str(number)})
        if number == 3 and study_id == "ours":
            client.log_artifact(run.info.run_id, str(tmp_path / "best.safetensors"), "weights")

    (tmp_path / "here").mkdir()

    found = [fetch_weights(uri, "toy", "ours", number, tmp_path / "here") for number in (3, 4, 5)]

    assert found == [tmp_path / "here/weights", None, None]
    assert (tmp_path / "here/weights/best.safetensors").read_bytes() == b"weights"


def test_a_server_that_is_away_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(HpoError, match="is not reached"):
        fetch_weights("http://127.0.0.1:9", "toy", "ours", 3, tmp_path)
