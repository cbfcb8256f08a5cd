"""The Gaussian process over curves: right gradients, right posterior, and it learns what matters."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from hpo.schedulers import surrogate
from hpo.schedulers.surrogate import Posterior, Rows, fit


def rows(n: int = 40, seed: int = 0) -> Rows:
    """Curves that depend on the first of three coordinates, at two epochs each."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.random((n // 2, 3)), 2, axis=0)
    times = np.tile([0.2, 0.6], n // 2)
    values = np.sin(4 * points[:, 0]) + times + 0.05 * rng.standard_normal(n)
    return Rows(points, times, np.repeat(np.arange(n // 2), 2), (values - values.mean()) / values.std())


def test_the_gradient_of_the_fit_is_the_costs_own(monkeypatch):
    caught: dict = {}

    def catch(cost, start, **_settings):
        caught.update(cost=cost, start=start)
        raise InterruptedError

    monkeypatch.setattr(surrogate, "minimize", catch)
    with pytest.raises(InterruptedError):
        fit(rows(20))

    rng = np.random.default_rng(3)
    for _ in range(3):
        theta = caught["start"] + 0.3 * rng.standard_normal(len(caught["start"]))
        off = check_grad(lambda t: caught["cost"](t)[0], lambda t: caught["cost"](t)[1], theta)
        assert off < 1e-3 * max(1.0, np.linalg.norm(caught["cost"](theta)[1]))


def test_it_learns_which_coordinate_matters():
    theta = fit(rows())

    assert theta[0] < min(theta[1], theta[2]) - 0.3


def test_it_predicts_what_it_has_seen_and_is_unsure_elsewhere():
    seen = rows()
    posterior = Posterior(seen, fit(seen))

    mean, spread = posterior.predict(seen.points, seen.times, seen.owners)
    _, far = posterior.predict(np.full((1, 3), 5.0), np.array([1.0]), np.array([-1]))

    assert np.abs(mean - seen.values).mean() < 0.15
    assert far[0] > 3 * spread.mean()


def test_a_curve_once_seen_keeps_its_own_level():
    seen = rows()
    posterior = Posterior(seen, fit(seen))
    lifted = posterior.given(Rows(seen.points[:1], np.array([0.8]), seen.owners[:1], np.array([4.0])))
    at = (seen.points[:1], np.array([1.0]))

    own, _ = lifted.predict(*at, seen.owners[:1])
    twin, _ = lifted.predict(*at, np.array([-1]))

    assert own[0] > twin[0] > posterior.predict(*at, seen.owners[:1])[0][0]


def test_observations_that_are_all_one_point_are_no_error():
    same = Rows(np.zeros((5, 2)), np.zeros(5), np.zeros(5, np.int64), np.zeros(5))

    mean, spread = Posterior(same, fit(same)).predict(np.zeros((1, 2)), np.zeros(1), np.zeros(1, np.int64))

    assert np.isfinite([mean, spread]).all()
