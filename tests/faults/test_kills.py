"""SIGKILL where it hurts most: what was finished stays, nothing is done twice, and the results are the same."""

import os
import random
import sys

import pytest

from tests.faults.campaign import assert_unhurt, begin, command, hurt, outcome
from tests.faults.points import POINTS

pytestmark = pytest.mark.slow
SEED = 20_261_127
N_LONG = 250
"""Kills in the long form, on each kind of store."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The study left alone."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    assert command(folder, storage) == 0, (folder / "log.txt").read_text()
    return outcome(folder, storage)


def test_a_study_killed_at_each_of_the_eight_points_is_the_one_left_alone(tmp_path, whole):
    folder, moments = tmp_path / "study", random.Random(SEED)
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"

    hits = {point: hurt(folder, storage, point, "all", moments)[0] for point in POINTS}
    assert command(folder, storage) == 0, (folder / "log.txt").read_text()

    assert all(hits.values()), hits
    assert_unhurt(folder, storage, whole, len(POINTS))


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="500 kills take hours; set HPO_LONG_TESTS=1")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_studies_killed_hundreds_of_times_are_the_one_left_alone(tmp_path, whole, kind, request):
    n_kills = seed = 0
    while n_kills < N_LONG:
        seed += 1
        folder, moments = tmp_path / str(seed), random.Random(seed)
        begin(folder)
        storage = f"sqlite:///{folder / 'hpo.db'}"
        if kind == "postgresql":
            storage = request.getfixturevalue("postgres").url(f"hurt{seed}")
        n_here, is_done = 0, False
        while not is_done:
            point, who = moments.choice(list(POINTS)), moments.choice(["one", "all", "all", "all"])
            struck, is_done = hurt(folder, storage, point, who, moments)
            n_here += struck
        assert command(folder, storage) == 0, f"seed {seed}: {(folder / 'log.txt').read_text()[-2000:]}"
        assert_unhurt(folder, storage, whole, n_here)
        n_kills += n_here
        sys.stdout.write(f"{kind}, seed {seed}: {n_kills} kills\n")
