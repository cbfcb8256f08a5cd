"""A machine that stands still and wakes up late: its trial has another owner by then, over whom it writes nothing."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import optuna
import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment
from tests.faults.campaign import N_EPOCHS, N_TRIALS, STUDY, n_trained, said
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

APART = ["unshare", "--uts", "--mount", "sh", "-c", 'hostname "$0" && mount -t tmpfs none "$1" && shift && exec "$@"']
"""A host name of its own, and a folder that it does not see."""

NEEDS_APART = pytest.mark.skipif(
    subprocess.run([*APART, "other", "/mnt", "true"], check=False, capture_output=True).returncode != 0,
    reason="nothing can be set apart here (unshare --uts --mount)",
)
pytestmark = [pytest.mark.slow, NEEDS_APART]


@contextmanager
def machine(
    study: Path, url: str, unseen: Path, more: Mapping[str, str] = MappingProxyType({}), flags: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work in its study's folder, on a host of that name; it sees nothing of another's folder."""
    folder = study.parent
    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--storage", url, "--workers", "1", *flags]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*APART, folder.name, str(unseen), *command],
            cwd=folder,
            env={**environment(), **more},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_machine_that_stood_still_writes_nothing_over_its_trials_new_owner(tmp_path, postgres):
    url = postgres.url(uuid.uuid4().hex)
    still, other = tmp_path / "still", tmp_path / "other"
    still.mkdir()
    other.mkdir()
    studies = [write_toy(folder, trials=2, epochs=80, pause=0.2) for folder in (still, other)]
    with machine(studies[0], url, other) as first:
        wait_for_epochs(still, 20)
        os.killpg(first.pid, signal.SIGSTOP)
        taken = witnessed(still)[-1][0]
        with machine(studies[1], url, still) as second:
            deadline = time.monotonic() + 240
            while not (other / "witness.txt").exists() or (taken, "79") not in witnessed(other):
                assert time.monotonic() < deadline, said(other)
                time.sleep(0.1)
            os.killpg(first.pid, signal.SIGCONT)

            for each, folder in ((first, still), (second, other)):
                assert each.wait(timeout=120) == 0, said(folder)

    found = optuna.load_study(study_name="toy", storage=url).trials
    assert [t.state for t in found] == [TrialState.COMPLETE] * 2
    assert {len(t.intermediate_values) for t in found} == {80}
    late = [int(epoch) for number, epoch in witnessed(still) if number == taken]
    assert max(late) < 40, "it went on with a trial that was another's by then"


def test_a_machine_that_stood_still_replaces_no_file_of_its_trials_new_owner(tmp_path, postgres):
    url, shared = postgres.url(uuid.uuid4().hex), tmp_path / "shared"
    still, other, owners = tmp_path / "still", tmp_path / "other", shared / ".owners"  # whose locks others don't see
    owners.mkdir(parents=True)
    study = (
        STUDY.replace(f'"epochs": {N_EPOCHS}', '"epochs": 20')
        .replace(f"n_trials={N_TRIALS}", "n_trials=1")
        .replace("checkpoint_seconds=0", "checkpoint_seconds=3600")  # what was trained is kept as it is left
        .replace("yield metrics", "yield metrics\n        __import__('time').sleep(0.3)")
    )
    for folder in (still, other):
        folder.mkdir()
        (folder / "hurt.py").write_text(study)
    flags = ["--workdir", str(shared), "--device", "cpu"]
    with machine(still / "hurt.py", url, owners, flags=flags) as first:
        deadline = time.monotonic() + 240
        while n_trained(still) < 5:
            assert time.monotonic() < deadline, said(still)
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGSTOP)
        with machine(other / "hurt.py", url, owners, flags=flags) as second:
            assert second.wait(timeout=240) == 0, said(other)
        os.killpg(first.pid, signal.SIGCONT)
        assert first.wait(timeout=120) == 0, said(still)

    (trial,) = optuna.load_study(study_name="hurt", storage=url).trials
    folder = shared / "hurt" / "0"
    assert (trial.state, len(trial.intermediate_values)) == (TrialState.COMPLETE, 20)
    assert n_trained(other) == 20
    assert len((folder / "artifacts" / "history.csv").read_text().splitlines()) == 1 + 20
    assert not (folder / "checkpoints").exists()
