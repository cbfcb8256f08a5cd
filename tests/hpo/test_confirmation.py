"""What a confirmation says: intervals that hold, the choice allowed for, the optimism told."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpo import confirmation
from hpo.confirmation import Retrained, chosen_among, confirmed, estimate, share_interval, simple_regret

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def retrained(trial=0, values=(0.5, 0.6), *, searched=0.7, baseline=False) -> Retrained:
    trials = tuple(10 * trial + i for i in range(len(values)))
    return Retrained(
        trial=trial, params={"x": trial}, is_baseline=baseline, searched=searched, trials=trials, values=tuple(values)
    )


def say(*configurations, direction="maximize"):
    return confirmed(configurations, study="toy", metric="val_accuracy", direction=direction)


@given(VALUES)
def test_an_interval_is_students_of_the_values(values):
    found = estimate(values)

    assert found.low <= found.mean <= found.high
    if np.std(values) > 1e-9:
        test = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((test.low, test.high))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.3 - 0.1, 0.2, 0.4 - 0.2]])
def test_one_seed_or_equal_values_give_no_interval(values):
    assert (estimate(values).low, estimate(values).high) == (-math.inf, math.inf)


@given(VALUES, st.integers(2, 10), st.sampled_from([1.0, -1.0]))
def test_who_was_chosen_has_more_room_towards_worse_and_none_more_towards_better(values, k, sign):
    alone, chosen = estimate(values), chosen_among(values, k, sign)

    worse, better = (chosen.low, chosen.high) if sign > 0 else (-chosen.high, -chosen.low)
    assert worse <= (alone.low if sign > 0 else -alone.high)
    assert better == (alone.high if sign > 0 else -alone.low)
    assert chosen_among(values, 1, sign) == alone


@pytest.mark.parametrize("means", [(0.6,) * 5, (0.6, 0.59, 0.58, 0.57, 0.56), (0.65, 0.6, 0.6, 0.6, 0.6)])
def test_the_winners_interval_holds_its_true_mean_however_the_means_lie(means):
    held, own, optimism, regret = [], [], [], []
    for seed in range(600):
        rng = np.random.default_rng(seed)
        values = np.array(means)[:, None] + rng.normal(0, 0.01, (5, 5)) + rng.normal(0, 0.01, 5)
        searched = [mean + 0.02 + rng.normal(0, 0.01) for mean in means]
        said = say(
            *(retrained(i, row, searched=s) for i, (row, s) in enumerate(zip(values.tolist(), searched, strict=True)))
        )
        held.append(said.winner.low <= means[said.best.trial] <= said.winner.high)
        own += [one.estimate.low <= means[one.trial] <= one.estimate.high for one in said.configurations]
        optimism.append(said.optimism)
        regret.append(max(means) - means[said.best.trial] <= said.regret)

    assert np.mean(held) >= 0.94
    assert np.mean(regret) >= 0.94
    assert np.mean(own) == pytest.approx(0.95, abs=0.02)
    assert np.mean(optimism) == pytest.approx(0.02, abs=0.002)


def test_the_winner_is_the_best_mean_and_is_compared_with_the_baseline_seed_by_seed():
    base, other = [0.50, 0.60, 0.40], [0.53, 0.64, 0.42]

    said = say(retrained(0, base, baseline=True), retrained(4, other))

    assert said.best.trial == 4
    assert said.baseline is not None
    test = stats.ttest_rel(other, base).confidence_interval(0.95)
    assert said.difference is not None
    assert (said.difference.low, said.difference.high) == pytest.approx((test.low, test.high))
    assert said.champion == 41  # its best network by validation


def test_no_other_is_better_than_the_winner_by_more_than_the_worst_end_of_its_paired_differences():
    best, close, far = [0.53, 0.64, 0.42, 0.60], [0.52, 0.64, 0.42, 0.57], [0.10, 0.20, 0.05, 0.11]

    ends = [stats.ttest_rel(best, other).confidence_interval(1 - 0.05 / 2).low for other in (close, far)]
    assert ends[0] < 0 < ends[1]
    assert simple_regret(best, [close, far], 1.0) == pytest.approx(-ends[0])
    assert simple_regret([-v for v in best], [[-v for v in close], [-v for v in far]], -1.0) == pytest.approx(-ends[0])
    assert simple_regret(best, [far], 1.0) == 0.0  # it is the best
    assert say(retrained(0, best), retrained(1, close), retrained(2, far)).regret == pytest.approx(-ends[0])


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=5))
def test_what_is_said_of_all_others_agrees_with_what_is_said_of_the_baseline(values):
    said = say(*(retrained(i, row, baseline=i == 0) for i, row in enumerate(values)))

    if said.regret == 0.0 and said.difference is not None:
        assert said.difference.low >= 0.0


@pytest.mark.parametrize("others", [[], [[0.4]], [[0.4], [0.3]]])
def test_of_one_configuration_or_one_seed_no_comparison_with_the_best_is_said(others):
    assert simple_regret([0.5], others, 1.0) is None


def test_less_is_better_where_the_study_minimizes():
    said = say(retrained(0, [0.5, 0.6], searched=0.4), retrained(1, [0.3, 0.2], searched=0.1), direction="minimize")

    assert said.best.trial == 1
    assert said.champion == 11
    assert said.best.optimism == pytest.approx(0.15)  # it saw less than there is
    assert said.winner.high > estimate([0.3, 0.2]).high


def test_a_baseline_that_wins_has_no_difference():
    assert say(retrained(0, [0.9, 0.8], baseline=True), retrained(1, [0.5, 0.6])).difference is None


def test_configurations_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match="a value for each seed"):
        say(retrained(0, [0.5]), retrained(1, [0.5, 0.6]))
    with pytest.raises(ValueError, match="a value for each seed"):
        say()


def test_what_is_written_is_read_again(tmp_path):
    test = confirmation.Test(
        metric="accuracy", values=(0.5, 0.6), estimate=estimate([0.5, 0.6]), champion=0.6, champion_low=0.5,
        champion_high=0.7, n_images=100, scorings=1,
    )  # fmt: skip
    for given_test in (None, test):
        said = confirmation.dataclasses.replace(
            say(retrained(0, [0.5], searched=None), retrained(1, [0.6])), test=given_test
        )
        file = confirmation.write(said, tmp_path)
        assert confirmation.read(tmp_path, "") == said
        json.loads(file.read_text(), parse_constant=pytest.fail)  # an infinite end of an interval is no JSON
    assert confirmation.read(tmp_path, "of another study") is None
    assert confirmation.read(tmp_path / "nothing", "") is None
    (tmp_path / confirmation.FILE).write_text('{"study": "toy"}')
    assert confirmation.read(tmp_path, "") is None


def test_the_optimism_is_of_those_that_the_search_chose():
    said = say(
        retrained(0, [0.5, 0.5], searched=0.2, baseline=True),
        retrained(1, [0.6, 0.6]),
        retrained(2, [0.5, 0.5], searched=None),
    )

    assert said.optimism == pytest.approx(0.1)


def test_a_shares_interval_is_wilsons():
    low, high = share_interval(0.6, 3589)

    assert (low, high) == pytest.approx((0.5839, 0.6160), abs=2e-4)
