"""What docs/cluster.md tells a reader to type: its flags, and its job array on a real Slurm where this machine has one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import optuna
import pytest
import yaml  # type: ignore[import-untyped]  # which MLflow brings
from optuna.trial import TrialState

from hpo.run import parser
from tests.end_to_end.stores import ROOT, environment, runs
from tests.end_to_end.test_outage import free_port, mlflow_server
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

GUIDE = (ROOT / "docs" / "cluster.md").read_text()
COMMANDS = re.findall(r"^ +(?:srun )?python -m hpo\.run (.*?)(?: &)?$", GUIDE, re.MULTILINE)
POD = yaml.safe_load(textwrap.dedent(re.findall(r"(?m)^    apiVersion(?:.*\n)+?(?=\n\S)", GUIDE)[0]))
CONTAINER = POD["spec"]["template"]["spec"]["containers"][0]
ARRAY = textwrap.dedent(re.findall(r"(?m)^    #!/bin/bash(?:.*\n)+?(?=\n\S)", GUIDE)[0])


@pytest.mark.parametrize("flags", [*map(shlex.split, COMMANDS), CONTAINER["command"][3:] + CONTAINER["args"]])
def test_every_command_of_the_guide_has_flags_that_there_are(flags):
    assert parser().parse_args(flags).study == "fer"


def test_the_guide_has_a_command_for_each_way():
    assert len(COMMANDS) == 6
    assert CONTAINER["command"][:3] == ["python", "-m", "hpo.run"]


def has_slurm() -> bool:
    if shutil.which("sbatch") is None:
        return False
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(["scontrol", "ping"], check=False, timeout=30).returncode == 0
    return False


def all_told(folder: Path) -> bool:
    """Whether MLflow has the end of each trial: a job that is told to end leaves that to the next one."""
    tracked = runs(folder, "toy")
    return all(str(n) in tracked and tracked[str(n)][0].info.status == "FINISHED" for n in range(6))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not has_slurm(), reason="there is no Slurm here, with a GPU or two to its nodes")
def test_a_job_array_that_is_told_to_end_and_requeued_goes_on_from_its_epochs(tmp_path, postgres):
    study = write_toy(tmp_path, trials=6, epochs=40, pause=1.0)
    url, port = postgres.url("array"), free_port()
    script = ARRAY.replace("--study fer", f"--study {study}")
    (tmp_path / "fer.sh").write_text(re.sub(r"/var/\w+", str(tmp_path / "node"), script))
    settings = {
        **environment(),
        "STORAGE": url,
        "SCRATCH": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def slurm(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with ExitStack() as ending:
        ending.enter_context(mlflow_server(tmp_path, port))
        # Its time is up after two minutes, which it is told one before.
        job = slurm("sbatch", "--parsable", "--time=2", f"--output={tmp_path}/log-%a.txt", "fer.sh")
        ending.callback(subprocess.run, ["scancel", job], check=False)
        wait_for_epochs(tmp_path, 10)
        slurm("scontrol", "requeue", f"{job}_1")  # as one of a higher priority does
        deadline = time.monotonic() + 900
        while len(witnessed(tmp_path)) < 6 * 40 or not all_told(tmp_path):
            assert time.monotonic() < deadline, slurm("squeue")
            time.sleep(2)

    trials = optuna.load_study(study_name="toy", storage=url).trials
    said = "".join(log.read_text() for log in tmp_path.glob("log-*.txt"))
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6, said
    assert Counter(witnessed(tmp_path)) == {(str(n), str(epoch)): 1 for n in range(6) for epoch in range(40)}, said
    workers = {line.split()[0] for line in (tmp_path / "witness.txt").read_text().splitlines()}
    assert len(workers) > 2, said  # more than the two that a node of two GPUs began with
    tracked = runs(tmp_path, "toy")  # which refuses two runs of one trial, and of the study
    for n in range(6):
        assert [step for step, _ in tracked[str(n)][1]["score"]] == list(range(40))
