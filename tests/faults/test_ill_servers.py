"""An MLflow server that fails, has no room, or is away: the study runs on, and all arrives, once."""

import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from hpo.outbox import open_outbox
from tests.end_to_end.stores import filled, run, runs, start, trials
from tests.end_to_end.test_outage import free_port, mlflow_server
from tests.end_to_end.test_toy_study import delivered
from tests.faults.campaign import said
from tests.faults.ill_server import ILLNESSES, ill_server
from tests.hpo.toy import wait_for_epochs, write_toy

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
    assert_told(tmp_path, folder, f"toy-{illness}", 3)


def assert_told(folder: Path, server: Path, study: str, n_trials: int) -> None:
    """The server's store has all of a study, each thing once."""
    tracked = runs(server, study)  # which refuses two runs of one trial
    assert sorted(tracked) == sorted([*map(str, range(n_trials)), "study"])
    for trial in trials(folder, study):
        each, points = tracked[str(trial.number)]
        assert points["score"] == sorted(trial.intermediate_values.items())
        assert each.info.status == "FINISHED"


def test_a_kill_while_a_server_is_away_loses_nothing_of_what_waits_for_it(tmp_path):
    server, port = tmp_path / "server", free_port()
    server.mkdir()
    study = write_toy(tmp_path, trials=3, epochs=20, pause=0.1)
    args = ("--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}", "--workers", "1")
    command = start(tmp_path, *args)
    wait_for_epochs(tmp_path, 45)
    os.killpg(command.pid, signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL

    with mlflow_server(server, port):
        done = run(tmp_path, *args)

    assert done.returncode == 0, done.stderr
    assert_told(tmp_path, server, "toy", 3)


def test_a_server_that_is_wiped_amid_a_study_is_told_all_of_it_anew(tmp_path):
    before, server, port = tmp_path / "before", tmp_path / "wiped", free_port()
    before.mkdir()
    server.mkdir()
    study = write_toy(tmp_path, trials=3, epochs=40, pause=0.3)
    with mlflow_server(before, port):
        command = start(tmp_path, "--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}", "--workers", "1")
        wait_for_epochs(tmp_path, 60)
        deadline = time.monotonic() + 120
        while not {"study", "0"} <= delivered(before):
            assert time.monotonic() < deadline, said(tmp_path)
            time.sleep(0.2)
    with mlflow_server(server, port):
        assert command.wait(timeout=600) == 0, said(tmp_path)
        again = run(tmp_path, "--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}")

    assert again.returncode == 0, again.stderr
    assert "MLflow no longer has the run of" in said(tmp_path) + again.stdout + again.stderr
    assert "is not reached" not in again.stdout
    assert_told(tmp_path, server, "toy", 3)
    assert len(list(server.rglob("leaderboard.csv"))) == 1


@pytest.mark.parametrize("ailment", ["full", "read-only"])
def test_a_server_whose_artifacts_have_no_place_gets_them_once_they_have(tmp_path, small_disk, ailment):
    port = free_port()
    study = write_toy(tmp_path, trials=2)
    args = ("--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}")
    (tmp_path / "artifacts").symlink_to(small_disk)
    if ailment == "full":
        ballast = filled(small_disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with mlflow_server(tmp_path, port):
        away = run(tmp_path, *args)
        if ailment == "full":
            ballast.unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        back = run(tmp_path, *args)

    assert away.returncode == back.returncode == 0, away.stderr + back.stderr
    assert "study toy is done" in away.stdout
    assert "the same command delivers" in away.stdout
    assert "is not reached" not in back.stdout
    assert_told(tmp_path, tmp_path, "toy", 2)
    assert len(list(small_disk.rglob("leaderboard.csv"))) == 1


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="takes a quarter of an hour; set HPO_LONG_TESTS=1")
def test_ten_minutes_without_a_server_cost_eight_workers_no_point_and_no_time(tmp_path):
    server, port, pause = tmp_path / "server", free_port(), 1.0
    server.mkdir()
    telling = 'Path("times.txt").open("a").write(f"{Path(workdir).name} {time.monotonic()}\\n")'
    study = write_toy(tmp_path, trials=8, epochs=720, pause=pause, inject=telling)
    with mlflow_server(server, port):
        command = start(tmp_path, "--study", str(study), "--tracking-uri", f"http://127.0.0.1:{port}", "--workers", "8")
        wait_for_epochs(tmp_path, 8 * 50, within=600)
        gone = time.monotonic()
    time.sleep(600)
    with mlflow_server(server, port):
        back = time.monotonic()
        (file,) = (tmp_path / "outbox").glob("*.db")
        outbox = open_outbox(file.parent, file.stem)
        behind = max(item.id for item in outbox.waiting(limit=100_000))
        while any(item.id <= behind for item in outbox.waiting(limit=1)):
            assert time.monotonic() - back < 300, said(tmp_path)
            time.sleep(0.5)
        drained = time.monotonic() - back
        assert command.wait(timeout=900) == 0, said(tmp_path)

    assert_told(tmp_path, server, "toy", 8)
    times = defaultdict(list)
    for line in (tmp_path / "times.txt").read_text().splitlines():
        times[line.split()[0]].append(float(line.split()[1]))
    steps = [pair for trial in times.values() for pair in itertools.pairwise(trial)]
    while_away = [b - a for a, b in steps if a > gone and b < back]
    beside_it = [b - a for a, b in steps if b < gone]
    slowed = statistics.median(while_away) / statistics.median(beside_it) - 1
    waited = max(while_away) - pause
    sys.stdout.write(
        f"without a server {slowed:+.2%} a step, {waited:.2f} s the longest wait, {drained:.0f} s to drain\n"
    )
    assert slowed < 0.01
    assert waited < 1.0
    assert drained < 60
