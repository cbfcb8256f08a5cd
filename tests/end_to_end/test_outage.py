"""With no MLflow server for the whole study it runs on; when the server comes the same command delivers all, once."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.stores import environment, run, runs, trials
from tests.hpo.toy import write_toy

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, port: int, command: str = "server") -> Iterator[str]:
    """A real MLflow server on the stores in `folder`."""
    args = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
    if command == "server":
        args += ["--artifacts-destination", "./artifacts"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", command, *args],
        cwd=folder, env={**environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)  # noqa: S310  a loopback address
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        else:
            pytest.fail("the MLflow server did not come up")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_without_a_server_it_runs_on_and_with_one_all_arrives_once(tmp_path):
    port = free_port()
    study = write_toy(tmp_path, trials=4)
    args = ("--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}")

    away = run(tmp_path, *args)
    with mlflow_server(tmp_path, port):
        back = run(tmp_path, *args)

    assert away.returncode == back.returncode == 0, away.stderr + back.stderr
    assert "is not reached yet" in away.stdout
    assert "is not reached" not in back.stdout
    tracked = runs(tmp_path, "toy")
    assert sorted(tracked) == ["0", "1", "2", "3", "study"]
    for trial in trials(tmp_path, "toy"):
        assert tracked[str(trial.number)][1]["score"] == sorted(trial.intermediate_values.items())
        assert tracked[str(trial.number)][0].info.status == "FINISHED"


def test_where_no_store_of_mlflow_can_be_made_the_study_runs_all_the_same_and_says_so(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=20, pause=0.2)
    (tmp_path / "mlflow.db.lock").mkdir()

    without = run(tmp_path, "--study", str(study))
    (tmp_path / "mlflow.db.lock").rmdir()
    again = run(tmp_path, "--study", str(study))

    assert without.returncode == again.returncode == 0, without.stderr + again.stderr
    assert "is not reached (" in without.stdout
    assert "mlflow.db" in without.stdout
    assert "study toy is done" in without.stdout
    assert "the same command delivers them" in without.stdout
    assert [each.info.status for each, _ in runs(tmp_path, "toy").values()] == ["FINISHED"] * 3
