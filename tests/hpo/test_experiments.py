"""What is asked of a study's experiment as a whole."""

import pytest

from hpo.errors import HpoError
from hpo.experiments import experiment_of, fetch_network
from hpo.tracking import MlflowClient


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_question_makes_no_store(uri, tmp_path):
    assert experiment_of(uri, "toy") is None
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_another_machine_has_trained_is_fetched_from_its_run(uri, tmp_path):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("toy", artifact_location=str(tmp_path / "artifacts"))
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    for number, study_id in ((3, "another"), (3, "ours"), (4, "ours")):
        run = client.create_run(experiment, tags={"hpo.study_id": study_id, "optuna.trial_number": str(number)})
        if number == 3 and study_id == "ours":
            client.log_artifact(run.info.run_id, str(tmp_path / "best.safetensors"), "weights")
            client.log_text(run.info.run_id, "{}", "hyperparameters.json")
            client.log_text(run.info.run_id, "a", "pictures/a.txt")
            client.log_text(run.info.run_id, "m", "model/MLmodel")

    found = [fetch_network(uri, "toy", "ours", number, tmp_path / str(number)) for number in (3, 4, 5)]

    assert found == [tmp_path / "3", None, None]
    files = {path.relative_to(tmp_path / "3").as_posix() for path in (tmp_path / "3").rglob("*") if path.is_file()}
    assert files == {"weights/best.safetensors", "artifacts/hyperparameters.json", "artifacts/pictures/a.txt"}
    assert (tmp_path / "3/weights/best.safetensors").read_bytes() == b"weights"


def test_a_server_that_is_away_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(HpoError, match="is not reached"):
        fetch_network("http://127.0.0.1:9", "toy", "ours", 3, tmp_path)
