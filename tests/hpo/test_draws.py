"""Configurations that are drawn lie in the space, evenly or near where they should."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.draws import Draws, Scale


def suggest(trial):
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    params = {
        "kind": kind,
        "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True),
        "share": trial.suggest_float("share", 0.0, 0.5, step=0.1),
        "size": trial.suggest_int("size", 16, 512, log=True),
        "depth": trial.suggest_int("depth", 1, 9, step=2),
    }
    if kind == "b":
        params["momentum"] = trial.suggest_float("momentum", 0.1, 0.99)
    return params


def holds(drawn) -> bool:
    inside = all(d._contains(d.to_internal_repr(drawn.suggested[name])) for name, d in drawn.distributions.items())
    return inside and set(drawn.suggested) == set(drawn.distributions) == set(drawn.params)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 3.0))
def test_what_is_drawn_lies_in_the_space_and_its_conditions_hold(seed, width):
    rng, draws = np.random.default_rng(seed), Draws(suggest)
    anywhere = list(draws.anywhere(rng, 5))
    near = [one for given_one in anywhere for one in draws.near(rng, given_one.suggested, 3, width)]

    for drawn in [*anywhere, *near, *draws.spread(rng, 7)]:
        assert holds(drawn)
        assert ("momentum" in drawn.suggested) == (drawn.suggested["kind"] == "b")


def test_an_even_spread_has_each_choice_equally_often_and_each_part_of_a_range_once():
    drawn = list(Draws(suggest).spread(np.random.default_rng(0), 30))

    kinds = [d.suggested["kind"] for d in drawn]
    assert [kinds.count(k) for k in "abc"] == [10, 10, 10]
    assert sorted(kinds[:3]) == ["a", "b", "c"]
    places = sorted((np.log10(d.suggested["rate"]) + 4) / 4 * 30 for d in drawn)
    assert [int(place) for place in places] == list(range(30))


def test_near_is_nearer_than_anywhere():
    rng, draws = np.random.default_rng(1), Draws(suggest)
    around = next(draws.anywhere(rng, 1)).suggested

    def away(them):
        return np.mean([abs(np.log(d.suggested["rate"] / around["rate"])) for d in them])

    assert away(draws.near(rng, around, 100, 0.05)) < away(draws.anywhere(rng, 100)) / 3


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1))
def test_a_scale_gives_back_the_place_of_a_value(place):
    from optuna.distributions import FloatDistribution

    for distribution in (FloatDistribution(1e-5, 10, log=True), FloatDistribution(-3, 8)):
        scale = Scale(distribution)
        assert np.isclose(scale.place(scale.value(place)), place, atol=1e-9)
