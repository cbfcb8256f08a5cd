"""SIGKILL, again and again and each time later, of the commands that make a claim: it comes out as if none had come."""

import os
import signal
import subprocess
import sys

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from hpo.conclusion import CLAIMS, TESTS
from hpo.confirmation import read
from model.exported import load
from tests.end_to_end.stores import ROOT, environment, run, runs
from tests.end_to_end.test_confirm import FACES_STUDY
from tests.faults.campaign import INJECT, KILLED, said

pytestmark = pytest.mark.slow

STEPS = (
    "hpo.confirmation write before 1 all",
    "hpo.confirmation as_json before 1 all",
    "hpo.confirmation write after 2 all",
    "hpo.tracked log_confirmation after 1 all",
    "hpo.tracked describe_study before 1 all",
    "hpo.export registered before 1 all",
    "hpo.registry Registry.create_version after 1 all",
)
"""Each step of a claim: before anything is written, between the test split's look and its record, and so on."""


def killed_until_it_ends(folder, module, *args) -> int:
    """Run a command over and over, each time left alone a little longer; gives how often it was killed."""
    kills = 0
    while True:
        with (folder / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", module, "--study", "faces.py", *args]
            process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            assert process.wait(0.5 * 1.6**kills) == 0, said(folder)
            return kills
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1


def test_confirm_report_and_export_that_are_killed_again_and_again_claim_what_they_would_have_claimed(tmp_path):
    (tmp_path / "faces.py").write_text(FACES_STUDY)
    assert run(tmp_path, "--study", "faces.py").returncode == 0

    kills = [
        killed_until_it_ends(tmp_path, "hpo.confirm", "--top", "1", "--seeds", "2"),
        killed_until_it_ends(tmp_path, "hpo.report"),
        killed_until_it_ends(tmp_path, "hpo.export", "--register", "--file", "out.safetensors"),
    ]

    assert min(kills) >= 2
    assert "faces-report.html" in assert_claimed_once(tmp_path)
    assert (tmp_path / "faces-report.html").read_text().rstrip().endswith("</html>")
    assert len(load(tmp_path / "out.safetensors").preparation.class_names) == 7


def test_a_confirmation_killed_at_each_step_of_its_claim_claims_once(tmp_path):
    (tmp_path / "faces.py").write_text(FACES_STUDY)
    assert run(tmp_path, "--study", "faces.py").returncode == 0
    command = [sys.executable, "-m", "hpo.confirm", "--study", "faces.py", "--top", "1", "--seeds", "2"]
    paths = os.pathsep.join([str(INJECT), str(ROOT)])
    codes = []

    for step in (*STEPS, ""):
        (tmp_path / "calls").unlink(missing_ok=True)
        faults = {"PYTHONPATH": paths, "FAULT": step, "FAULT_COUNT": str(tmp_path / "calls")}
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment(), **faults}, start_new_session=True,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        codes.append((step, done.returncode))

    assert codes == [*((step, KILLED) for step in STEPS), ("", 0)], done.stderr
    assert_claimed_once(tmp_path)

    (tmp_path / "calls").unlink(missing_ok=True)
    faults["FAULT"] = STEPS[0].replace("before", "after")  # the same command once more: what is known stays known
    again = subprocess.run(
        command, cwd=tmp_path, env={**environment(), **faults}, start_new_session=True, check=False
    )  # fmt: skip
    assert again.returncode == KILLED
    assert_claimed_once(tmp_path)


def test_two_confirmations_at_once_claim_once(tmp_path):
    (tmp_path / "faces.py").write_text(FACES_STUDY)
    assert run(tmp_path, "--study", "faces.py").returncode == 0
    command = [sys.executable, "-m", "hpo.confirm", "--study", "faces.py", "--top", "1", "--seeds", "2"]

    both = [subprocess.Popen(command, cwd=tmp_path, env=environment()) for _ in range(2)]

    assert [process.wait(1200) for process in both] == [0, 0]
    assert_claimed_once(tmp_path)


def assert_claimed_once(tmp_path) -> list[str]:
    """One look at the test split, one claim, one champion, in all stores; gives the artifacts of the study's run."""
    beside = optuna.load_study(study_name="faces-confirm", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    assert [t.state for t in beside.trials] == [TrialState.COMPLETE] * 2
    of = optuna.load_study(study_name="faces", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    assert len(of.user_attrs[TESTS]) == len(of.user_attrs[CLAIMS]) == 1
    said = read(tmp_path / "trials" / "faces-confirm", of.user_attrs["hpo.study_id"])
    assert said is not None
    assert said.test is not None
    assert said.test.scorings == 1
    assert sorted(runs(tmp_path, "faces-confirm")) == ["0", "1", "study"]
    parent, points = runs(tmp_path, "faces")["study"]
    assert points["confirmed_val_accuracy"] == [(0, said.best.estimate.mean)]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'faces'")
    assert client.get_model_version_by_alias("faces", "champion").version == version.version
    return [file.path for file in client.list_artifacts(parent.info.run_id)]
