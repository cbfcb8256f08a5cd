"""SIGKILL where it hurts most: what was finished stays, nothing is done twice, and the results are the same."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.campaign import KILLED, assert_unhurt, begin, command, hurt, n_trained, said, started
from tests.faults.points import POINTS

pytestmark = pytest.mark.slow
LONG = pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="takes minutes; set HPO_LONG_TESTS=1")
SEED = 20_261_127
N_LONG = int(os.environ.get("HPO_LONG_KILLS", "250"))
"""Kills in the long form, on each kind of store."""
FIRST = int(os.environ.get("HPO_LONG_SEED", "1"))
"""The seed of its first study: so it can be run in parts."""


def test_a_study_killed_at_each_of_the_eight_points_is_the_one_left_alone(tmp_path, whole):
    folder, moments = tmp_path / "study", random.Random(SEED)
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"

    hits = {point: hurt(folder, storage, point, "all", moments)[0] for point in POINTS}
    assert command(folder, storage) == 0, said(folder)

    assert all(hits.values()), hits
    assert_unhurt(folder, storage, whole, len(POINTS))


def assert_ends_in_order(tmp_path, whole, n: int, within: float) -> None:
    """SIGTERM at so many moments: the command is out in time, and not one epoch is trained again."""
    folder, moments = tmp_path / "study", random.Random(SEED)
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    codes: list[int] = []
    while len(codes) < n:
        process, before = started(folder, storage), n_trained(folder)
        while n_trained(folder) == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 2))
        process.send_signal(signal.SIGTERM)
        codes.append(process.wait(timeout=within))
        if codes[-1] == 0:  # it was done before; another study goes on
            assert_unhurt(folder, storage, whole, 0)
            folder = tmp_path / f"study-{len(codes)}"
            begin(folder)
            storage = f"sqlite:///{folder / 'hpo.db'}"

    assert command(folder, storage) == 0, said(folder)
    assert set(codes) <= {0, 143}, codes
    assert 143 in codes
    assert_unhurt(folder, storage, whole, 0)


def test_sigterm_at_three_moments_loses_nothing(tmp_path, whole):
    assert_ends_in_order(tmp_path, whole, 3, within=60)  # other tests may run beside


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="50 take half an hour; set HPO_LONG_TESTS=1")
def test_sigterm_at_fifty_moments_loses_nothing_and_is_out_within_ten_seconds(tmp_path, whole):
    assert_ends_in_order(tmp_path, whole, 50, within=10)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("n", [2, pytest.param(40, marks=[LONG, pytest.mark.long])])
def test_a_study_killed_at_any_moment_is_the_one_left_alone(tmp_path, whole, kind, n, request):
    n_kills, seed = 0, FIRST - 1
    while n_kills < n:
        seed += 1
        folder, moments = tmp_path / str(seed), random.Random(seed)
        begin(folder)
        storage = f"sqlite:///{folder / 'hpo.db'}"
        if kind == "postgresql":
            storage = request.getfixturevalue("postgres").url(f"any{n}_{seed}")
        n_here = 0
        for _ in range(min(5, n - n_kills)):
            process, trained = started(folder, storage), n_trained(folder)
            if moments.random() < 0.5:  # else while it begins, in most cases
                deadline = time.monotonic() + 300
                while n_trained(folder) == trained and process.poll() is None:
                    assert time.monotonic() < deadline, said(folder)
                    time.sleep(0.02)
            try:
                code = process.wait(moments.uniform(0, 5))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                n_here += 1
            assert code in {0, KILLED}, f"seed {seed}: {said(folder)[-2000:]}"
        assert command(folder, storage) == 0, f"seed {seed}: {said(folder)[-2000:]}"
        assert_unhurt(folder, storage, whole, n_here)
        n_kills += n_here
        sys.stdout.write(f"{kind}, any moment, seed {seed}: {n_kills} kills\n")


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="500 kills take hours; set HPO_LONG_TESTS=1")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_studies_killed_hundreds_of_times_are_the_one_left_alone(tmp_path, whole, kind, request):
    n_kills, seed = 0, FIRST - 1
    while n_kills < N_LONG:
        seed += 1
        folder, moments = tmp_path / str(seed), random.Random(seed)
        begin(folder)
        storage = f"sqlite:///{folder / 'hpo.db'}"
        if kind == "postgresql":
            storage = request.getfixturevalue("postgres").url(f"hurt{seed}")
        n_here, is_done = 0, False
        while not is_done:
            # After the kill of one process the command goes on by itself, mostly to the study's end.
            point, who = moments.choice(list(POINTS)), moments.choice(["one", *["all"] * 9])
            struck, is_done = hurt(folder, storage, point, who, moments)
            n_here += struck
        assert command(folder, storage) == 0, f"seed {seed}: {(folder / 'log.txt').read_text()[-2000:]}"
        assert_unhurt(folder, storage, whole, n_here)
        n_kills += n_here
        sys.stdout.write(f"{kind}, seed {seed}: {n_kills} kills\n")
