"""The doctor finds what a kill, a server or a disk has left behind, and mends what it safely can."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, run, runs, start, trials
from tests.faults.campaign import KILLED, begin, command
from tests.hpo.toy import write_toy

pytestmark = pytest.mark.slow


def doctor(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpo.doctor", "--study", *args],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def wrong(said: str) -> list[str]:
    return [line for line in said.splitlines() if " wrong " in line]


@pytest.fixture
def done(tmp_path):
    """A study of two trials that is done."""
    study = write_toy(tmp_path, trials=2)
    assert run(tmp_path, "--study", str(study)).returncode == 0
    return study


def test_of_a_study_that_is_done_all_is_well(done, tmp_path):
    found = doctor(tmp_path, str(done))

    assert found.returncode == 0, found.stdout + found.stderr
    areas = [line.split()[0] for line in found.stdout.splitlines()[:-1]]
    assert areas == ["versions", "store", "study", "leases", "data", "files", "outbox", "MLflow"]
    assert "3 runs, each as its trial is" in found.stdout
    assert found.stdout.endswith("all is well\n")


def test_room_is_asked_for_by_a_study_that_goes_on_and_not_by_one_that_is_done(small_disk):
    study = write_toy(small_disk, trials=2)
    (small_disk / "ballast").write_bytes(bytes(300 << 20))  # of 512
    assert run(small_disk, "--study", str(study)).returncode == 0
    (small_disk / "more").write_bytes(bytes(100 << 20))
    done = doctor(small_disk, str(study))
    (small_disk / "more").unlink()
    begun = "Path('begun').touch()\n            time.sleep(0.5)"
    command = start(small_disk, "--study", str(write_toy(small_disk, trials=2, inject=begun)), "--trials", "3")
    while not (small_disk / "begun").exists():
        assert command.poll() is None
        time.sleep(0.05)
    command.terminate()
    assert command.wait(timeout=60) == 143
    (small_disk / "more").write_bytes(bytes(100 << 20))

    interrupted = doctor(small_disk, str(study))

    assert (done.returncode, wrong(done.stdout)) == (0, [])
    assert interrupted.returncode == 1
    (line,) = wrong(interrupted.stdout)
    assert " free, need 200 MB to go on" in line


def test_what_a_kill_leaves_is_mended_and_the_study_goes_on(tmp_path):
    held = "while epoch == 3 and not WITNESS.with_name('go').exists(): time.sleep(0.05)"
    study = write_toy(tmp_path, trials=1, epochs=6, inject=held)
    command = start(tmp_path, "--study", str(study))
    while "0" not in runs_if_any(tmp_path) and command.poll() is None:
        time.sleep(0.2)
    at_work = doctor(tmp_path, str(study))
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()

    found = doctor(tmp_path, str(study))
    mended = doctor(tmp_path, str(study), "--repair")
    again = doctor(tmp_path, str(study))

    assert "trial 0: at work" in at_work.stdout
    assert not wrong(at_work.stdout)
    assert found.returncode == 1
    assert "the worker is gone without a word" in found.stdout
    assert "trial 0 is RUNNING, and its run RUNNING" in found.stdout
    assert "the study's own run is RUNNING, and nobody works on it" in found.stdout
    assert found.stdout.endswith("can be mended: the same command with --repair\n")
    assert mended.returncode == 0, mended.stdout
    assert again.returncode == 0, again.stdout
    assert {each.info.status for each, _ in runs(tmp_path, "toy").values()} == {"SCHEDULED"}
    (tmp_path / "go").touch()
    assert run(tmp_path, "--study", str(study)).returncode == 0
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE]


def runs_if_any(folder: Path) -> dict[str, object]:
    """What the command's store has, once it is there: whoever asked before would make one of its own."""
    try:
        return runs(folder, "toy") if (folder / "mlflow.db").exists() else {}
    except AssertionError:  # it has no experiment yet
        return {}


def test_what_mlflow_says_otherwise_or_lacks_is_told_anew(done, tmp_path):
    before = runs(tmp_path, "toy")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.update_run(before["0"][0].info.run_id, status="RUNNING")
    client.delete_run(before["1"][0].info.run_id)

    found = doctor(tmp_path, str(done))
    mended = doctor(tmp_path, str(done), "--repair")

    assert "trial 0 is COMPLETE, and its run RUNNING; trial 1 has no run" in found.stdout
    assert mended.returncode == 0, mended.stdout
    after = runs(tmp_path, "toy")
    assert {each.info.status for each, _ in after.values()} == {"FINISHED"}
    assert [after[key][1] for key in ("0", "1")] == [before[key][1] for key in ("0", "1")]

    (tmp_path / "mlflow.db").unlink()
    assert doctor(tmp_path, str(done), "--repair").returncode == 0
    assert {each.info.status for each, _ in runs(tmp_path, "toy").values()} == {"FINISHED"}


def test_leftovers_are_found_and_removed(done, tmp_path):
    (tmp_path / "trials" / "toy" / "1" / "checkpoints").mkdir()
    (owner,) = sample_owner(tmp_path)

    found = doctor(tmp_path, str(done))
    mended = doctor(tmp_path, str(done), "--repair")

    assert len(wrong(found.stdout)) == 2
    assert "trial 1: ended, and a checkpoint is left over" in found.stdout
    assert "1 files in" in found.stdout
    assert mended.returncode == 0, mended.stdout
    assert not owner.exists()
    assert not (tmp_path / "trials" / "toy" / "1" / "checkpoints").exists()


def sample_owner(folder: Path) -> list[Path]:
    """The file of a worker of this host that was killed while it owned nothing."""
    code = "import os, sys; from pathlib import Path; from hpo.leases import become_owner\n"
    code += "become_owner(Path(sys.argv[1])); os._exit(9)"
    owners = folder / "trials" / ".owners"
    subprocess.run([sys.executable, "-c", code, str(owners)], env=environment(), check=False)
    return list(owners.glob("*.owner"))


def test_what_can_not_be_mended_is_said_and_left(done, tmp_path):
    done.write_text(done.read_text().replace('"x", 0.0, 1.0', '"x", 0.0, 0.5'))
    (tmp_path / "trials").rename(tmp_path / "elsewhere")

    found = doctor(tmp_path, str(done), "--repair")

    assert found.returncode == 1
    assert "another configuration than the study was made with: the search space" in found.stdout
    assert "is not here: is --workdir another one" in found.stdout
    assert found.stdout.endswith("2 wrong\n")


def test_a_network_s_damaged_checkpoint_and_weights_are_said_with_its_device_and_data(tmp_path):
    folder = tmp_path / "study"
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    assert command(folder, storage, "model.training validate before 6 all") == KILLED
    (running,) = [t for t in trials(folder, "hurt") if t.state == TrialState.RUNNING]
    (checkpoint, *_) = sorted((folder / "trials" / "hurt" / str(running.number) / "checkpoints").glob("*.pt"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    weights = folder / "trials" / "hurt" / "0" / "weights" / "best.safetensors"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])

    found = doctor(folder, "hurt.py", "--storage", storage, "--device", "cpu")

    assert found.returncode == 1
    assert " data         ok      as the study was made with: " in f" {found.stdout}".replace("\n", "\n ")
    assert "device       ok      cpu" in found.stdout
    assert f"trial {running.number}: {checkpoint} is damaged" in found.stdout.replace(str(folder) + "/", "").replace(
        "trials/hurt", str(folder / "trials/hurt")
    )
    assert "best.safetensors is damaged" in found.stdout


def test_a_damaged_store_is_said(done, tmp_path):
    with sqlite3.connect(tmp_path / "hpo.db") as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trial_values'").fetchone()
    with (tmp_path / "hpo.db").open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 16)

    found = doctor(tmp_path, str(done))

    assert found.returncode != 0
    assert "damaged" in found.stdout + found.stderr or "malformed" in found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    more = run(tmp_path, "--study", str(done), "--trials", "3")
    assert more.returncode == 2, more.stdout + more.stderr
    assert [line.startswith("the store is damaged (") for line in more.stderr.splitlines()] == [True]


def test_an_outbox_that_is_gone_with_what_it_had_not_told_is_said(done, tmp_path):
    shutil.rmtree(tmp_path / "outbox")
    (tmp_path / "mlflow.db").unlink()

    more = run(tmp_path, "--study", str(done), "--trials", "3")
    found = doctor(tmp_path, str(done))

    assert "outbox/ knows nothing of 2 ended trials" in more.stdout
    assert wrong(found.stdout) == ["MLflow       wrong   trials 0, 1: no run, and outbox/ knows nothing of it"]


def test_no_such_study_is_one_line(tmp_path):
    found = doctor(tmp_path, "demo")

    assert (found.returncode, found.stdout) == (2, "")
    assert len(found.stderr.splitlines()) == 1
