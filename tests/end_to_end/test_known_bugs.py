"""Bugs that others have had, by the threads that tell of them: their kind must not exist here.

`docs/known-bugs.md` lists them all, each with the tests that pin it down.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, filled, run, runs, start, trials
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

pytestmark = pytest.mark.slow


def test_a_hundred_and_sixty_enqueued_trials_are_run_once_each_by_eight_workers(tmp_path):
    """optuna#4621, #4002: of 160, stock Optuna on SQLite runs 23 to 46 twice."""
    study = write_toy(tmp_path, trials=160, epochs=1)
    run(tmp_path, "--study", str(study), "--trials", "1")
    stored = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    for n in range(159):
        stored.enqueue_trial({"x": n / 160, "kind": "a"})

    done = run(tmp_path, "--study", str(study), "--trials", "160", "--workers", "8")

    assert done.returncode == 0, done.stderr
    assert "locked" not in done.stdout + done.stderr
    assert Counter(witnessed(tmp_path)) == Counter((str(number), "0") for number in range(160))
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 160
    assert {each.info.status for each, _ in runs(tmp_path, "toy").values()} == {"FINISHED"}


@pytest.mark.parametrize("log_place", ["beside", "disk"])
def test_a_full_disk_ends_it_with_74_and_the_same_command_goes_on_when_there_is_room(small_disk, tmp_path, log_place):
    """ray#32481, #23674: a full disk loses checkpoints, or the study."""
    study = write_toy(tmp_path, trials=2, epochs=15, pause=0.2)
    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--workers", "1"]
    (tmp_path / log_place).mkdir(exist_ok=True)
    with (tmp_path / log_place / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=small_disk, env=environment(), stdout=log, stderr=log)
    wait_for_epochs(tmp_path, 6)
    ballast = filled(small_disk)
    code = process.wait(120)
    said = (tmp_path / log_place / "log.txt").read_text()
    ballast.unlink()

    done = run(small_disk, "--study", str(study), "--workers", "1")

    assert code == 74, said
    if log_place == "beside":
        (line,) = [line for line in said.splitlines() if "the disk is full" in line]
        assert re.search(
            r"the disk is full \(.*\): \d.* MB are free, need 200 MB.*; make room, the same command goes on$", line
        )
        assert str(small_disk) in line
    assert "Traceback" not in said
    assert done.returncode == 0, done.stderr
    found = trials(small_disk, "toy")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 2
    assert all(sorted(t.intermediate_values) == list(range(15)) for t in found)
    tracked = runs(small_disk, "toy")
    assert {str(t.number) for t in found} | {"study"} == set(tracked)
    assert all([step for step, _ in tracked[str(t.number)][1]["score"]] == list(range(15)) for t in found)


def test_two_commands_that_find_a_dead_worker_s_trial_at_once_give_it_one_owner(tmp_path):
    """optuna#4862, #4886: two that look for dead workers fail a trial twice, or one of them crashes."""
    study = write_toy(tmp_path, trials=2, epochs=20, pause=0.2)
    process = start(tmp_path, "--study", str(study), "--workers", "2")
    wait_for_epochs(tmp_path, 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--workers", "2"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [each.wait(300) for each in both] == [0, 0]
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 2
    twice = {epoch: n for epoch, n in Counter(witnessed(tmp_path)).items() if n > 1}
    assert len(twice) <= 2  # at most the epoch that each was in when it was killed
    tracked = runs(tmp_path, "toy")
    assert all([s for s, _ in tracked[str(n)][1]["score"]] == list(range(20)) for n in (0, 1))
