"""Workers that die, stand still and come back beside others: each trial has one owner, and the budget is exact."""

import collections
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import run, runs, start, trials
from tests.faults.campaign import assert_unhurt, begin, command, n_trained, said, started
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

pytestmark = pytest.mark.slow
SEED = 20_261_129
LONG = pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="takes minutes; set HPO_LONG_TESTS=1")


def owners(folder: Path) -> dict[str, list[str]]:
    """The processes that trained each trial, one after the other; two of them that alternate appear again."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for line in (folder / "witness.txt").read_text().splitlines():
        process, trial, _ = line.split()
        if not found[trial] or found[trial][-1] != process:
            found[trial].append(process)
    return found


def assert_one_owner_at_a_time(folder: Path) -> None:
    for trial, processes in owners(folder).items():
        assert len(set(processes)) == len(processes), f"trial {trial} was trained by two at once: {processes}"


def wait_for_more(folder: Path, n: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many more epochs were trained, or the command has ended."""
    wanted = n_trained(folder) + n
    deadline = time.monotonic() + 300
    while n_trained(folder) < wanted and process.poll() is None:
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.02)


def kill_a_worker(process: subprocess.Popen[bytes], moments: random.Random) -> None:
    workers: list[psutil.Process] = []
    while not workers and process.poll() is None:  # one may be coming up
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.Error):  # a child may end while it is looked at
                workers += [child] if "hpo.worker" in child.cmdline() else []
    moments.choice(workers).kill()


def assert_exact(folder: Path, n_trials: int, n_killed: int) -> None:
    """Each of so many trials is whole, and of so many killed workers each cost an epoch at most."""
    found = trials(folder, "toy")
    assert [t.state for t in found] == [TrialState.COMPLETE] * n_trials
    assert_one_owner_at_a_time(folder)
    counts = collections.Counter(witnessed(folder))
    assert sum(counts.values()) - len(counts) <= n_killed
    tracked = runs(folder, "toy")
    assert sorted(tracked) == sorted([*map(str, range(n_trials)), "study"])
    for trial in found:
        assert tracked[str(trial.number)][1]["score"] == sorted(trial.intermediate_values.items())


@pytest.mark.parametrize(
    ("n_workers", "n_restarts"), [(3, 2), pytest.param(8, 5, marks=[LONG, pytest.mark.long])], ids=["short", "long"]
)
def test_the_budget_is_exact_however_often_workers_and_commands_are_killed(tmp_path, n_workers, n_restarts):
    """optuna#3518, #1883, #1865."""
    moments, n_trials = random.Random(SEED), 4 * n_workers * (n_restarts + 1)
    study = write_toy(tmp_path, trials=n_trials, epochs=4, pause=0.3)
    for _ in range(n_restarts):
        process = start(tmp_path, "--study", str(study), "--workers", str(n_workers))
        wait_for_more(tmp_path, moments.randint(n_workers, 2 * n_workers), process)
        kill_a_worker(process, moments)
        wait_for_more(tmp_path, moments.randint(n_workers, 2 * n_workers), process)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, said(tmp_path)

    done = run(tmp_path, "--study", str(study), "--workers", str(n_workers))

    assert done.returncode == 0, done.stderr
    assert_exact(tmp_path, n_trials, n_restarts * (1 + n_workers))


@pytest.mark.parametrize("n", [3, pytest.param(100, marks=[LONG, pytest.mark.long])])
def test_a_command_that_comes_back_takes_its_own_trial_and_begins_no_other(tmp_path, n):
    study = write_toy(tmp_path, trials=1, epochs=2 * n + 2, pause=0.1)
    waited = []
    for _ in range(n):
        process = start(tmp_path, "--study", str(study), "--workers", "1")
        began = time.monotonic()
        wait_for_more(tmp_path, 1, process)
        waited.append(time.monotonic() - began)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, said(tmp_path)

    assert run(tmp_path, "--study", str(study), "--workers", "1").returncode == 0
    assert_exact(tmp_path, 1, n)
    sys.stdout.write(f"{n} restarts: an epoch after {statistics.median(waited):.1f} s, at most {max(waited):.1f} s\n")


@pytest.mark.parametrize("seconds", [40, pytest.param(600, marks=[LONG, pytest.mark.long])])
def test_no_trial_is_taken_from_a_command_that_stands_still_on_the_same_machine(tmp_path, seconds):
    """optuna#5470, #4234, #3198."""
    study = write_toy(tmp_path, trials=4, epochs=40, pause=0.3)
    still = start(tmp_path, "--study", str(study), "--workers", "1")
    wait_for_epochs(tmp_path, 5)
    other = start(tmp_path, "--study", str(study), "--workers", "1")
    wait_until(lambda: len(owners(tmp_path)) > 1, other, tmp_path)

    os.killpg(still.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.killpg(still.pid, signal.SIGCONT)

    assert [still.wait(300), other.wait(300)] == [0, 0], said(tmp_path)
    assert {len(processes) for processes in owners(tmp_path).values()} == {1}
    assert_exact(tmp_path, 4, 0)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None or holds(), said(folder)
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.05)


def test_a_second_sigterm_harms_nothing(tmp_path, whole):
    folder, moments = tmp_path / "study", random.Random(SEED)
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    for n_kills in itertools.count():
        process, before = started(folder, storage), n_trained(folder)
        wait_until(lambda: n_trained(folder) > before or process.poll() is not None, process, folder)  # noqa: B023
        process.terminate()
        time.sleep(moments.uniform(0, 0.1))
        process.terminate()
        assert process.wait(timeout=60) in {0, 143}, said(folder)
        if n_kills == 3:
            break

    assert command(folder, storage) == 0, said(folder)
    assert_unhurt(folder, storage, whole, 4)
