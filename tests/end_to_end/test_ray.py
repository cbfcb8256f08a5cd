"""A study on a Ray cluster of two nodes, one of which is lost."""

import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, runs

pytestmark = [pytest.mark.slow, pytest.mark.alone]

N_TRIALS = 4


def epochs_kept(folder: Path) -> dict[int, int]:
    """Trial number -> epochs that its newest checkpoint has."""
    found = {}
    for manifest in folder.glob("trials/demo/*/checkpoints/manifest.json"):
        try:
            found[int(manifest.parts[-3])] = json.loads(manifest.read_text())[-1]["epoch"]
        except (OSError, ValueError, IndexError):
            continue
    return found


def test_the_demo_runs_on_both_nodes_and_a_lost_node_s_trial_goes_on_from_its_checkpoint(tmp_path, postgres):
    from ray.cluster_utils import Cluster

    url = postgres.url(uuid.uuid4().hex)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = cluster.add_node(num_cpus=1)
    command = [
        sys.executable, "-m", "hpo.run", "--study", "demo", "--trials", str(N_TRIALS), "--storage", url,
        "--cluster", f"ray:{cluster.address}", "--workers", "1",
    ]  # fmt: skip
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while len([n for n in epochs_kept(tmp_path).values() if n >= 1]) < 2:
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.05)
        before = epochs_kept(tmp_path)
        cluster.remove_node(lost, allow_graceful=False)

        assert process.wait(timeout=600) == 0, (tmp_path / "log.txt").read_text()
    finally:
        process.kill()
        cluster.shutdown()

    found = optuna.load_study(study_name="demo", storage=url).trials
    assert [t.state for t in found] == [TrialState.COMPLETE] * N_TRIALS
    tracked = runs(tmp_path, "demo")
    again = [n for n in before if tracked[str(n)][0].data.tags["hpo.attempt"] == "2"]
    assert len(again) == 1
    said = (tmp_path / "log.txt").read_text()
    assert "a node of the cluster is gone" in said
    assert f"trial {again[0]} starts again" not in said
    assert said.count("study demo is done") == 1
    assert len(set(re.findall(r"^([0-9a-f]{8})\.0  ", said, re.MULTILINE))) == 2


@pytest.mark.parametrize(
    ("cluster", "words"),
    [("slurm", "need ray or ray:HOST:PORT"), ("ray:127.0.0.1:1", "--cluster ray:127.0.0.1:1")],
)
def test_a_cluster_that_is_none_is_one_line(tmp_path, cluster, words):
    command = [sys.executable, "-m", "hpo.run", "--study", "demo", "--cluster", cluster]

    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
