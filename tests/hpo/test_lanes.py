"""As many trials at a time as are worth it; what goes wrong in one of them ends all, in order."""

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import DiskFullError
from hpo.lanes import chosen, owner_of, run_lanes, worth


def test_trials_are_added_for_as_long_as_twice_as_many_are_much_faster():
    assert chosen([(1, 100.0), (2, 190.0), (4, 300.0), (8, 310.0)]) == (4, 3.0)
    assert chosen([(1, 100.0), (2, 118.0)]) == (2, 1.18)
    assert chosen([(1, 100.0), (2, 120.0), (4, 150.0)]) == (2, 1.2)
    assert chosen([(1, 100.0), (2, 105.0), (4, 400.0)]) == (1, 1.0)
    assert chosen([]) == (1, 1.0)


def test_what_is_not_worth_it_is_not_measured_further():
    asked = []

    def rates() -> Iterator[tuple[int, float]]:
        for n, rate in ((1, 10.0), (2, 10.5), (4, 100.0)):
            asked.append(n)
            yield n, rate

    chosen(rates())

    assert asked == [1, 2]


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=5))
def test_each_doubling_that_is_chosen_was_worth_it(speeds):
    n, gain = chosen((2**i, speed) for i, speed in enumerate(speeds))

    taken = n.bit_length() - 1
    pairs = itertools.pairwise(speeds[: taken + 1])
    assert all(b >= worth(2 ** (i + 1)) * a for i, (a, b) in enumerate(pairs))
    assert gain == pytest.approx(speeds[taken] / speeds[0])


def test_where_one_raises_the_others_are_asked_to_end_and_it_is_told_when_they_have():
    stop, ended = threading.Event(), []

    def full() -> str:
        raise DiskFullError("no room")

    def other() -> str:
        assert stop.wait(10)
        ended.append("other")
        return "interrupted"

    with pytest.raises(DiskFullError, match="no room"):
        run_lanes([other, full, other], stop.set)
    assert ended == ["other", "other"]


def test_one_alone_runs_in_the_main_thread():
    assert run_lanes([lambda: threading.current_thread().name], lambda: None) == "MainThread"


def test_lanes_of_a_worker_own_under_names_of_their_own():
    assert [owner_of("abc", lane) for lane in range(3)] == ["abc", "abc.1", "abc.2"]
