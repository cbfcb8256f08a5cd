"""Many commands that begin one study at once, where there is nothing yet."""

import sqlite3
import subprocess
import sys
from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, runs, trials
from tests.hpo.toy import witnessed, write_toy

pytestmark = pytest.mark.slow


def test_eight_commands_begin_on_an_empty_folder_at_once_and_share_one_study(tmp_path):
    study = write_toy(tmp_path, trials=16, epochs=4, pause=0.2)
    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--workers", "1"]
    where = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    started = [subprocess.Popen(command, **where) for _ in range(8)]
    said = [process.communicate(timeout=600)[0].decode() for process in started]

    assert [process.returncode for process in started] == [0] * 8, said
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 16
    assert set(Counter(witnessed(tmp_path)).values()) == {1}
    tracked = runs(tmp_path, "toy")
    assert sorted(tracked) == sorted([*map(str, range(16)), "study"])
    assert all([step for step, _ in tracked[str(n)][1]["score"]] == [0, 1, 2, 3] for n in range(16))
    for store in ("hpo.db", "mlflow.db"):
        assert sqlite3.connect(tmp_path / store).execute("PRAGMA integrity_check").fetchone() == ("ok",)
