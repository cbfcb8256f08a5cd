"""What a model is given of the curves."""

import numpy as np
from optuna.trial import TrialState, create_trial

from hpo.schedulers.curves import Curve, observations, rungs, thinned
from hpo.schedulers.surrogate import Rows


def curve(number: int, values: list[float], *, diverged: bool = False, horizon: int = 50) -> Curve:
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number
    return Curve(trial, np.array(values), diverged, horizon)


def test_rungs_double_up_to_the_horizon_and_leave_no_scrap_before_it():
    assert rungs(50) == [1, 2, 4, 8, 16, 32, 50]
    assert rungs(9) == [1, 2, 4, 9]
    assert rungs(1) == [1]


def test_values_are_ranks_among_all_and_a_diverged_curve_is_the_worst_next():
    found = observations([curve(0, [0.1, 0.2, 0.3]), curve(1, [0.5], diverged=True)], np.zeros((2, 1)), 50)

    assert found is not None
    assert found.owners.tolist() == [0, 0, 0, 1, 1]
    assert np.argsort(found.values).tolist() == [4, 0, 1, 2, 3]
    assert abs(found.values.sum()) < 1e-9


def test_of_too_many_rows_the_best_newcomer_is_kept_and_some_of_the_worst():
    n = 400
    values = np.linspace(-2, 2, n)
    rows = Rows(np.zeros((n, 1)), np.zeros(n), np.arange(n), values)

    kept = thinned(rows, 200)

    assert len(kept.values) <= 200
    assert n - 1 in kept.owners
    assert 0 in kept.owners
    assert (kept.values > np.quantile(values, 0.75)).sum() >= 99


def test_the_past_of_the_best_fills_what_is_left():
    owners = np.repeat(np.arange(100), 3)
    times = np.tile([0.0, 0.2, 0.4], 100)
    rows = Rows(np.zeros((300, 1)), times, owners, np.repeat(np.linspace(-2, 2, 100), 3))

    kept = thinned(rows, 200)

    assert len(kept.values) == 200
    assert len(set(kept.owners)) == 100  # 100 of the best, of which there are no others
    assert (kept.owners == 99).sum() == 3
