"""A disk that is full at random moments: what was kept is whole, the command says so, and goes on once there is room."""

import os
import random
import re
import time
from pathlib import Path

import pytest

from tests.end_to_end.stores import filled, run, trials
from tests.faults.campaign import Outcome, assert_unhurt, begin, command, n_trained, said, started
from tests.hpo.toy import write_toy

pytestmark = pytest.mark.slow
SEED = 20_261_128
FULL = re.compile(r"^\S.*/\S+: (the disk is full|no room for) .*: [\d.]+ MB are free, need 200 MB.*$", re.MULTILINE)


def begin_on(disk: Path, beside: Path, n: int) -> Path:
    """The n-th study's folder on that disk; what its tests write of it lies beside."""
    folder, mine = disk / f"study-{n}", beside / f"beside-{n}"
    begin(folder)
    mine.mkdir()
    for name in ("witness.txt", "log.txt"):
        (mine / name).touch()
        (folder / name).symlink_to(mine / name)
    return folder


def assert_goes_on_once_there_is_room(disk: Path, beside: Path, whole: Outcome, n: int) -> None:
    """The disk is filled at so many moments, and room made again each time."""
    moments, n_full = random.Random(SEED), 0
    codes: list[int] = []
    folder = begin_on(disk, beside, 0)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    while codes.count(74) < n:
        process, before, n_said = started(folder, storage), n_trained(folder), len(said(folder))
        while n_trained(folder) == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.5))
        ballast = filled(disk)
        codes.append(process.wait(timeout=120))
        ballast.unlink()
        words = said(folder)[n_said:]
        assert codes[-1] in {0, 74}, f"moment {len(codes)} of seed {SEED}: {words}"
        assert "Traceback" not in words
        n_full += codes[-1] == 74
        if codes[-1] == 74:
            assert FULL.search(words), words
        else:  # it was done before, but for what MLflow is told; another study goes on
            assert command(folder, storage) == 0, words
            assert_unhurt(folder, storage, whole, n_full)
            n_full, folder = 0, begin_on(disk, beside, len(codes))
            storage = f"sqlite:///{folder / 'hpo.db'}"

    assert command(folder, storage) == 0, said(folder)
    assert_unhurt(folder, storage, whole, n_full)


def test_a_disk_that_is_too_full_to_begin_is_74_and_no_trial_begins(small_disk):
    study = write_toy(small_disk, trials=2)
    (small_disk / "ballast").write_bytes(bytes(400 << 20))  # of 512

    full = run(small_disk, "--study", str(study))
    (small_disk / "ballast").unlink()

    assert full.returncode == 74
    assert re.fullmatch(r"trials/toy: 0.1 GB free, need 0.2 GB: 3 checkpoints and 0.2 GB\n", full.stderr)
    assert trials(small_disk, "toy") == []
    assert run(small_disk, "--study", str(study)).returncode == 0
    assert len(trials(small_disk, "toy")) == 2


def test_a_disk_that_is_full_at_two_moments_harms_nothing(small_disk, tmp_path, whole):
    assert_goes_on_once_there_is_room(small_disk, tmp_path, whole, 2)


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="20 take a quarter of an hour; set HPO_LONG_TESTS=1")
def test_a_disk_that_is_full_at_twenty_moments_harms_nothing(small_disk, tmp_path, whole):
    assert_goes_on_once_there_is_room(small_disk, tmp_path, whole, 20)
