"""A study in PostgreSQL through the real command: outages of the server, and machines that share nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo.outbox import open_outbox
from tests.end_to_end.stores import environment, runs
from tests.hpo.postgres import a_server
from tests.hpo.toy import witnessed, write_toy

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def start(folder: Path, *args: str, host: str | None = None) -> subprocess.Popen[bytes]:
    """Start the command; on another machine, as far as it can tell, where a host is named."""
    command = [sys.executable, "-m", "hpo.run", *args]
    if host is not None:
        command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *command]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="toy", storage=url).trials


def wait_for(file: Path, command: subprocess.Popen[bytes], folder: Path) -> None:
    while not file.exists():
        assert command.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.1)


def test_eight_workers_outlast_ten_restarts_of_the_server_and_a_minute_without_it(tmp_path):
    study = write_toy(tmp_path, trials=40, epochs=20, pause=0.5)  # 50 s of training at the least
    with a_server() as server:
        url = server.url("study")
        command = start(tmp_path, "--study", str(study), "--storage", url, "--workers", "8")
        wait_for(tmp_path / "witness.txt", command, tmp_path)
        for _ in range(10):
            time.sleep(1)
            server.restart()
        server.stop()
        assert len(witnessed(tmp_path)) < 40 * 20, "nothing was left to train when the server went away"
        time.sleep(60)
        server.start()

        assert command.wait(timeout=300) == 0, (tmp_path / "log.txt").read_text()

        found = trials(url)
    assert [t.state for t in found] == [TrialState.COMPLETE] * 40
    assert {len(t.intermediate_values) for t in found} == {20}
    assert set(Counter(witnessed(tmp_path)).values()) == {1}
    said = (tmp_path / "log.txt").read_text()
    assert "a worker died" not in said
    assert said.count("the store can't be used now") >= 1
    tracked = runs(tmp_path, "toy")
    assert all([step for step, _ in tracked[str(n)][1]["score"]] == list(range(20)) for n in range(40))


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "--uts", "true"], check=False).returncode != 0,
    reason="no other host name can be given here (unshare --uts)",
)
@pytest.mark.parametrize("is_copied", [False, True], ids=["alone", "with-a-url-for-checkpoints"])
def test_two_machines_finish_one_study_though_one_is_lost(tmp_path, postgres, is_copied):
    url, machines = postgres.url(uuid.uuid4().hex), [tmp_path / name for name in ("one", "two")]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    commands, arguments = [], []
    for folder in machines:
        folder.mkdir()
        study = write_toy(folder, trials=6, epochs=60, pause=0.2)
        args: tuple[str, ...] = ("--study", str(study), "--storage", url, "--tracking-uri", uri, "--workers", "1")
        if is_copied:
            args = (*args, "--workdir", f"file://{tmp_path}/shared")
        arguments.append(args)
        commands.append(start(folder, *args, host=folder.name))
        wait_for(folder / "witness.txt", commands[-1], folder)
    while not 35 <= int(witnessed(machines[0])[-1][1]) < 50:  # amid a trial, some of which is copied by now
        time.sleep(0.05)
    os.killpg(commands[0].pid, signal.SIGKILL)
    commands[0].wait()
    lost = witnessed(machines[0])[-1][0]
    killed_at = time.monotonic()
    while lost not in {number for number, _ in witnessed(machines[1])}:
        assert time.monotonic() - killed_at < 60, (machines[1] / "log.txt").read_text()
        time.sleep(0.1)

    assert commands[1].wait(timeout=300) == 0, (machines[1] / "log.txt").read_text()
    found = trials(url)
    assert [t.state for t in found] == [TrialState.COMPLETE] * 6
    assert {len(t.intermediate_values) for t in found} == {60}
    said = (machines[1] / "log.txt").read_text()
    starts_again = f"trial {lost} starts again from epoch 0: what it had trained is on another machine" in said
    assert starts_again != is_copied
    assert ((lost, "0") in witnessed(machines[1])) == starts_again
    assert "need one server for all of them" in said.replace("\n", " ")
    again = start(machines[0], *arguments[0], host="one")  # what it began another has ended, of which it must tell
    assert again.wait(timeout=300) == 0, (machines[0] / "log.txt").read_text()
    (outbox,) = (machines[0] / "outbox").glob("*.db")
    assert open_outbox(outbox.parent, outbox.stem).unended() == []
    tracked = runs(tmp_path, "toy")
    assert {each.info.status for each, _ in tracked.values()} == {"FINISHED"}
    assert all([step for step, _ in tracked[str(n)][1]["score"]] == list(range(60)) for n in range(6))
