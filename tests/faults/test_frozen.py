"""A machine that stands still and wakes up late: its trial has another owner by then, over whom it writes nothing."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import optuna
import pytest
from optuna.trial import TrialState

from tests.end_to_end.stores import environment
from tests.faults.campaign import said
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
    study: Path, url: str, unseen: Path, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work in its study's folder, on a host of that name; it sees nothing of another's folder."""
    folder = study.parent
    command = [sys.executable, "-m", "hpo.run", "--study", str(study), "--storage", url, "--workers", "1"]
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
