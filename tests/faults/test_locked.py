"""A database that somebody else holds locked, for longer than SQLite waits: everybody waits, and nothing is lost."""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import run, runs, start, trials
from tests.faults.campaign import said
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

pytestmark = pytest.mark.slow


ALL = ("hpo.db", "mlflow.db", "outbox/*.db")


def assert_waited_for(folder: Path, seconds: float, stores: Sequence[str] = ALL) -> None:
    """Stores of a study at work are held for so long; it ends whole."""
    study = write_toy(folder, trials=6, epochs=20, pause=1.0)
    command = start(folder, "--study", str(study), "--workers", "2")
    wait_for_epochs(folder, 10)
    deadline = time.monotonic() + 120
    while not (folder / "mlflow.db").exists():  # sqlite3.connect would make one
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.01)
    with ExitStack() as held:
        for file in [file for pattern in stores for file in folder.glob(pattern)]:
            connection = held.enter_context(closing(sqlite3.connect(file, timeout=60, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)

    assert command.wait(timeout=300) == 0, said(folder)
    assert "the same command delivers them" not in said(folder)
    assert sorted(witnessed(folder)) == sorted((str(n), str(epoch)) for n in range(6) for epoch in range(20))
    assert "a worker died" not in said(folder)
    assert "Traceback" not in said(folder)
    tracked = runs(folder, "toy")
    for trial in trials(folder, "toy"):
        assert trial.state == TrialState.COMPLETE
        assert tracked[str(trial.number)][1]["score"] == sorted(trial.intermediate_values.items())


def test_a_command_that_begins_while_mlflow_s_store_is_locked_trains_and_tells_it_later(tmp_path):
    study = write_toy(tmp_path, trials=2)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as held:
        held.execute("CREATE TABLE of_somebody_else (x)")
        held.execute("BEGIN EXCLUSIVE")
        meanwhile = run(tmp_path, "--study", str(study))
    (tmp_path / "mlflow.db").unlink()
    after = run(tmp_path, "--study", str(study))

    assert meanwhile.returncode == after.returncode == 0, meanwhile.stderr + after.stderr
    assert "mlflow.db: another program holds MLflow's store" in meanwhile.stdout
    assert "the same command delivers" in meanwhile.stdout
    assert sorted(runs(tmp_path, "toy")) == ["0", "1", "study"]


def test_stores_that_are_locked_for_some_seconds_are_waited_for(tmp_path):
    assert_waited_for(tmp_path, 12)


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="takes minutes; set HPO_LONG_TESTS=1")
@pytest.mark.parametrize("stores", [ALL, ALL[2:]], ids=["all", "outbox"])
def test_stores_that_are_locked_for_longer_than_a_minute_are_waited_for(tmp_path, stores):
    assert_waited_for(tmp_path, 75, stores)
