"""Keeping house with studies that have run: delete, also after a kill, beside others and never at work; enqueue."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, run, runs, start, trials
from tests.hpo.toy import wait_for_epochs, write_toy

pytestmark = pytest.mark.slow


def studies(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpo.studies", *args],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def nothing_is_left(folder: Path) -> bool:
    """Of a study that was alone in its folder; MLflow keeps what is deleted until its own `gc`."""
    experiments = [e.name for e in client(folder).search_experiments() if e.name != "Default"]
    files = [p for p in (folder / "trials").iterdir() if p.name != ".owners"]
    return not experiments and not files and not list((folder / "outbox").iterdir())


def test_a_deleted_study_is_gone_everywhere_and_its_name_is_free(tmp_path):
    study = write_toy(tmp_path, trials=2)
    run(tmp_path, "--study", str(study))
    (before,) = client(tmp_path).search_experiments(filter_string="name = 'toy'")

    unasked = studies(tmp_path, "--delete", "toy")
    deleted = studies(tmp_path, "--delete", "toy", "--yes")
    again = studies(tmp_path, "--delete", "toy", "--yes")

    assert unasked.returncode == 2
    assert deleted.returncode == 0, deleted.stderr
    assert "study toy is deleted: 2 trials" in deleted.stdout
    assert "mlflow gc" in deleted.stdout
    assert nothing_is_left(tmp_path)
    assert len(client(tmp_path).search_runs([before.experiment_id], run_view_type=ViewType.DELETED_ONLY)) == 3
    assert again.returncode == 2
    assert "no study 'toy'" in again.stderr
    anew = run(tmp_path, "--study", str(study))
    assert anew.returncode == 0, anew.stderr
    assert "not reached" not in anew.stdout
    assert sorted(runs(tmp_path, "toy")) == ["0", "1", "study"]


def test_of_two_studies_in_one_experiment_only_the_deleted_ones_runs_go(tmp_path):
    study = write_toy(tmp_path, trials=1)
    run(tmp_path, "--study", str(study))
    theirs = {each.info.run_id for each, _ in runs(tmp_path, "toy").values()}
    (tmp_path / "hpo.db").unlink()
    run(tmp_path, "--study", str(study))

    deleted = studies(tmp_path, "--delete", "toy", "--yes")

    assert deleted.returncode == 0, deleted.stderr
    assert {each.info.run_id for each, _ in runs(tmp_path, "toy").values()} == theirs


def test_a_delete_that_is_killed_again_and_again_is_finished_by_the_same_command(tmp_path):
    run(tmp_path, "--study", str(write_toy(tmp_path, trials=6)))
    command = [sys.executable, "-m", "hpo.studies", "--delete", "toy", "--yes"]
    (outbox,) = (tmp_path / "outbox").glob("*.db")
    moments: list[Callable[[], bool]] = [
        lambda: _n_runs(tmp_path) < 7,
        lambda: _n_runs(tmp_path) == 0,
        lambda: not (tmp_path / "trials/toy").exists(),
        lambda: not outbox.exists(),
    ]
    codes: list[int] = []

    for has_come in moments:
        if codes and codes[-1] == 0:
            break
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
        while process.poll() is None and not has_come():
            time.sleep(0.002)
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    done = studies(tmp_path, "--delete", "toy", "--yes")

    assert set(codes) <= {-signal.SIGKILL, 0}
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert done.returncode == 0 or codes[-1] == 0, done.stderr
    assert nothing_is_left(tmp_path)
    assert "no study 'toy'" in studies(tmp_path, "--delete", "toy", "--yes").stderr


def _n_runs(folder: Path) -> int:
    import sqlite3

    with sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True, timeout=5) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()[0])


def test_a_study_at_work_is_not_deleted_and_one_that_was_interrupted_is(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1000, pause=0.1)
    process = start(tmp_path, "--study", str(study))
    wait_for_epochs(tmp_path, 1)

    listed = studies(tmp_path)
    refused = studies(tmp_path, "--delete", "toy", "--yes")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    rested = studies(tmp_path)
    deleted = studies(tmp_path, "--delete", "toy", "--yes")

    assert "running" in listed.stdout
    assert refused.returncode == 2
    assert "study 'toy' is at work" in refused.stderr
    assert "interrupted" in rested.stdout
    assert deleted.returncode == 0, deleted.stderr


def test_a_server_that_is_away_lets_nothing_be_deleted(tmp_path):
    run(tmp_path, "--study", str(write_toy(tmp_path, trials=1)))

    away = studies(tmp_path, "--delete", "toy", "--yes", "--tracking-uri", "http://127.0.0.1:9")

    assert away.returncode == 1
    assert "MLflow at http://127.0.0.1:9 is not reached" in away.stderr
    assert len(away.stderr.strip().splitlines()) == 1
    assert (tmp_path / "trials/toy/0").is_dir()
    assert len(trials(tmp_path, "toy")) == 1


def test_an_enqueued_configuration_is_the_next_trial_when_the_budget_grows_as_told(tmp_path):
    study = write_toy(tmp_path, trials=1)
    run(tmp_path, "--study", str(study))
    (tmp_path / "params.json").write_text('{"x": 0.123, "kind": "b"}')

    enqueued = studies(tmp_path, "--enqueue", str(study), "params.json")
    over = run(tmp_path, "--study", str(study))
    done = run(tmp_path, "--study", str(study), "--trials", "2")

    assert enqueued.returncode == 0, enqueued.stderr
    assert f"python -m hpo.run --study {study} --trials 2" in enqueued.stdout
    assert "1 trial; 1 waits: `--trials 2` lets 1 more run" in over.stdout
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path, "toy")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 2
    assert found[1].params == {"x": 0.123, "kind": "b"}


def test_what_is_enqueued_after_a_grid_is_done_runs_with_the_next_command(tmp_path):
    study = write_toy(tmp_path, trials=20, epochs=1, fields="sampler='grid'")
    study.write_text(study.read_text().replace('suggest_float("x", 0.0, 1.0)', 'suggest_int("x", 0, 1)'))
    assert "is done: 4 trials" in run(tmp_path, "--study", str(study)).stdout
    (tmp_path / "again.json").write_text('{"x": 1, "kind": "a"}')

    said = studies(tmp_path, "--enqueue", str(study), "again.json").stdout
    assert "to be run with the next" in said
    assert run(tmp_path, "--study", str(study)).returncode == 0

    found = trials(tmp_path, "toy")
    assert len(found) == 5
    assert found[4].params == {"x": 1, "kind": "a"}
    assert found[4].state.name == "COMPLETE"
