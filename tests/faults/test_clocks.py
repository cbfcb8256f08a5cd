"""Clocks that jump by an hour and by a day, forth and back, while a study runs: nobody's trial is taken over."""

import itertools
import shutil
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo.times import TIMES
from tests.end_to_end.stores import run, runs
from tests.faults.campaign import said
from tests.faults.test_frozen import NEEDS_APART, machine
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

HOUR, DAY = 3600, 86_400
JUMPS = (+HOUR, -HOUR, +DAY, -DAY, 0)
TELLING = 'Path("clock.txt").open("a").write(f"{time.time()}\\n")'
"""Told by each epoch: what time it is there."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here to give a process a clock of its own"),
    NEEDS_APART,
]


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory) -> Path:
    """What gives a process that loads it a clock of its own."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


def with_clock(file: Path, preloaded: Path) -> dict[str, str]:
    """The environment of a process whose clock is right until `file` says otherwise."""
    set_clock(file, 0)
    return {"LD_PRELOAD": str(preloaded), "CLOCK": str(file)}


def set_clock(file: Path, seconds: int) -> None:
    """Set the clock to so many seconds beside the right time."""
    with file.open("r+b" if file.exists() else "wb", buffering=0) as clock:
        clock.write(struct.pack("=q", seconds))


def jumped(clocks: Sequence[Path], offsets: Sequence[Sequence[int]], working: subprocess.Popen[bytes]) -> None:
    """Set the clocks anew, all at once, every few seconds for as long as a process lives."""
    for now in itertools.cycle(offsets):
        for clock, offset in zip(clocks, now, strict=True):
            set_clock(clock, offset)
        try:
            working.wait(timeout=6)  # longer than it takes until a lease is looked at again
        except subprocess.TimeoutExpired:
            continue
        return


def times_told(folder: Path) -> list[float]:
    return [float(line) for line in (folder / "clock.txt").read_text().splitlines()]


def test_a_trial_stays_its_owner_s_however_the_clocks_of_two_machines_jump(tmp_path, postgres, preloaded):
    url = postgres.url(uuid.uuid4().hex)
    owner, seeker = tmp_path / "owner", tmp_path / "seeker"
    owner.mkdir()
    seeker.mkdir()
    studies = [write_toy(each, trials=1, epochs=200, pause=0.2, inject=TELLING) for each in (owner, seeker)]
    clocks = [tmp_path / "owner.clock", tmp_path / "seeker.clock"]
    with machine(studies[0], url, seeker, with_clock(clocks[0], preloaded)) as first:
        wait_for_epochs(owner, 5)
        with machine(studies[1], url, owner, with_clock(clocks[1], preloaded)) as second:
            jumped(clocks, list(zip(JUMPS, reversed(JUMPS), strict=True)), first)

            assert first.returncode == 0, said(owner)
            assert second.wait(timeout=120) == 0, said(seeker)

    told = times_told(owner)
    assert max(told) - min(told) > 1.9 * DAY, "its clock did not jump"
    assert not (seeker / "witness.txt").exists(), "it took a trial whose owner lives"
    assert witnessed(owner) == [("0", str(epoch)) for epoch in range(200)]
    (trial,) = optuna.load_study(study_name="toy", storage=url).trials
    assert trial.state == TrialState.COMPLETE
    assert len(trial.intermediate_values) == 200


def test_a_study_whose_clock_jumps_is_whole_and_can_be_read(tmp_path, preloaded):
    folder, clock = tmp_path / "jumping", tmp_path / "clock"
    folder.mkdir()
    study = write_toy(folder, trials=4, epochs=40, pause=0.3, inject=TELLING)
    with machine(study, "sqlite:///hpo.db", Path("/mnt"), with_clock(clock, preloaded)) as command:
        wait_for_epochs(folder, 3)
        jumped([clock], [[offset] for offset in JUMPS], command)
        assert command.returncode == 0, said(folder)

    assert max(times_told(folder)) - min(times_told(folder)) > 1.9 * DAY, "its clock did not jump"
    assert sorted(witnessed(folder)) == sorted((str(n), str(epoch)) for n in range(4) for epoch in range(40))
    tracked = runs(folder, "toy")
    assert {run.info.status for run, _ in tracked.values()} == {"FINISHED"}
    for trial in optuna.load_study(study_name="toy", storage=f"sqlite:///{folder / 'hpo.db'}").trials:
        assert trial.state == TrialState.COMPLETE
        assert tracked[str(trial.number)][1]["score"] == sorted(trial.intermediate_values.items())
        assert 0 < sum(trial.user_attrs[TIMES].values()) < HOUR, "a jump was counted as time"
    again = run(folder, "--study", str(study))
    assert again.returncode == 0, again.stderr
    assert "is done" in again.stdout
