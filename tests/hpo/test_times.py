"""Every second of a worker goes to one kind, and what a study's time went to is told."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import create_trial

from hpo.times import KINDS, TIMES, Stopwatch, added, total, words


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1e6)), max_size=20))
def test_laps_add_up_to_all_that_has_passed(laps):
    now = 17.0
    watch = Stopwatch(lambda: now)
    for kind, seconds in laps:
        now += seconds
        watch.lap(kind)

    counted = watch.take()

    assert {kind: pytest.approx(seconds, abs=1e-3) for kind, seconds in counted.items()} == {
        kind: sum(seconds for each, seconds in laps if each == kind) for kind, _ in laps
    }
    assert watch.take() == {}


def test_a_part_of_one_kind_may_be_another_and_never_more_than_there_is():
    now = 0.0
    watch = Stopwatch(lambda: now)
    now = 5.0
    watch.lap("training")

    watch.move("training", "validation", 2.0)
    watch.move("training", "checkpoint", 9.0)

    assert watch.take() == {"training": 0.0, "validation": 2.0, "checkpoint": 3.0}


def test_a_studys_time_is_its_trials_and_a_trial_without_any_counts_as_none():
    trials = [
        create_trial(value=1.0, user_attrs={TIMES: added({}, {"training": 6.0, "waiting": 1.0})}),
        create_trial(value=1.0, user_attrs={TIMES: added({"training": 1.0}, {"training": 1.5, "validation": 0.5})}),
        create_trial(value=1.0),
    ]

    seconds = total(trials)

    assert seconds == {"training": 8.5, "validation": 0.5, "checkpoint": 0.0, "service": 0.0, "waiting": 1.0}
    assert words(seconds) == (
        "time of the workers, 10 seconds: training 85.0 %, validation 5.0 %, checkpoint 0.0 %, service 0.0 %, "
        "waiting 10.0 %"
    )
    assert words(total([])) is None


@pytest.mark.alone
def test_a_stopwatch_counts_real_time():
    watch = Stopwatch()
    time.sleep(0.02)
    watch.lap("waiting")

    assert 0.02 <= watch.take()["waiting"] < 1
