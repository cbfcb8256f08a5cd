"""Many commands that begin one study at once, where there is nothing yet."""

import os
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, runs, trials
from tests.hpo.toy import witnessed, write_toy

pytestmark = pytest.mark.slow
LONG = pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="takes minutes; set HPO_LONG_TESTS=1")


@pytest.mark.parametrize("n", [8, pytest.param(32, marks=[LONG, pytest.mark.long])])
def test_commands_that_begin_on_an_empty_folder_at_once_share_one_study(tmp_path, n):
    """optuna#820, #4994, #5385, #6036; hydraflow#245."""
    study = write_toy(tmp_path, trials=2 * n, epochs=4, pause=0.2)
    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--workers", "1"]
    where = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    started = [subprocess.Popen(command, **where) for _ in range(n)]
    said = [process.communicate(timeout=1800)[0].decode() for process in started]

    assert [process.returncode for process in started] == [0] * n, said
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 2 * n
    assert set(Counter(witnessed(tmp_path)).values()) == {1}
    tracked = runs(tmp_path, "toy")
    assert sorted(tracked) == sorted([*map(str, range(2 * n)), "study"])
    assert all([step for step, _ in tracked[str(number)][1]["score"]] == [0, 1, 2, 3] for number in range(2 * n))
    for store in ("hpo.db", "mlflow.db"):
        assert sqlite3.connect(tmp_path / store).execute("PRAGMA integrity_check").fetchone() == ("ok",)
