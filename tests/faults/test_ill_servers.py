"""An MLflow server that answers with errors, not at all, or by halves: the study runs on, and all arrives, once."""

import pytest

from tests.end_to_end.stores import run, runs, trials
from tests.end_to_end.test_outage import free_port, mlflow_server
from tests.faults.ill_server import ILLNESSES, ill_server
from tests.hpo.toy import write_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real server for all: its folder and its port."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with mlflow_server(folder, port):
        yield folder, port


@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_study_beside_an_ill_server_is_whole_and_is_told_once_when_it_is_well(tmp_path, server, illness):
    folder, real = server
    study = write_toy(tmp_path, trials=3)
    study.write_text(study.read_text().replace('name="toy"', f'name="toy-{illness}"'))
    with ill_server(real, illness) as ill:
        args = ("--study", str(study), "--tracking-uri", f"http://127.0.0.1:{ill.port}")

        away = run(tmp_path, *args)
        borne, ill.illness = ill.borne, "none"
        back = run(tmp_path, *args)

    assert away.returncode == back.returncode == 0, away.stderr + back.stderr
    assert borne > 0
    assert "is not reached" in away.stdout
    assert "the same command delivers" in away.stdout
    assert "is not reached" not in back.stdout
    tracked = runs(folder, f"toy-{illness}")  # which refuses two runs of one trial
    assert sorted(tracked) == ["0", "1", "2", "study"]
    for trial in trials(tmp_path, f"toy-{illness}"):
        each, points = tracked[str(trial.number)]
        assert points["score"] == sorted(trial.intermediate_values.items())
        assert each.info.status == "FINISHED"
