import re
from typing import Any

import pytest

from hpo import space
from hpo.errors import UserError


def conditional(trial):
    kind = trial.suggest_categorical("kind", ["a", "b"])
    if kind == "a":
        return {"kind": kind, "x": trial.suggest_float("x", 1e-3, 10.0, log=True)}
    return {"kind": kind, "depth": trial.suggest_int("depth", 1, 9), "size": trial.suggest_categorical("size", [1, 2])}


def test_every_branch_is_walked_once():
    assert [dict(b.params) for b in space.walk(conditional)] == [
        {"kind": "a", "x": pytest.approx(0.1)},
        {"kind": "b", "depth": 5, "size": 1},
        {"kind": "b", "depth": 5, "size": 2},
    ]


def test_corners_are_the_ends_of_the_ranges():
    low, high = (next(iter(space.walk(conditional, corner))).params["x"] for corner in ("low", "high"))

    assert (low, high) == (1e-3, 10.0)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((0, 1), (-1, 2), []),
        ((0, 1), (0, 0.5), ["x was [0.0, 1.0], now [0.0, 0.5]"]),
    ],
)
def test_ranges_may_only_widen(before, now, words):
    old, new = (space.distributions(lambda t, r=r: {"x": t.suggest_float("x", *r)}) for r in (before, now))

    assert space.changes(old, new) == words


def test_new_gone_and_changed_names_are_told():
    old = space.distributions(lambda t: {"a": t.suggest_int("a", 1, 2), "b": t.suggest_categorical("b", [1, 2])})
    new = space.distributions(lambda t: {"c": t.suggest_int("c", 1, 2), "b": t.suggest_categorical("b", [1, 2, 3])})

    assert space.changes(old, new) == ["c is new", "a is gone", "b was {1, 2}, now {1, 2, 3}"]


@pytest.mark.parametrize(
    ("suggest", "words"),
    [
        (lambda t: t.suggest_float("x", 2, 1), "x has the range [2, 1], need low <= high, both finite"),
        (lambda t: t.suggest_float("x", 0, 1, log=True), "x has the range [0, 1] (log), need 0 < low <= high"),
        (lambda t: t.suggest_float("x", float("nan"), 1), "x has the range [nan, 1], need low <= high, both finite"),
        (lambda t: t.suggest_float("x", 0, float("inf")), "x has the range [0, inf], need low <= high, both finite"),
        (lambda t: t.suggest_int("x", 5, 1), "x has the range [5, 1], need low <= high, both finite"),
        (lambda t: t.suggest_categorical("x", []), "x needs at least one choice, got none"),
        (lambda t: t.suggest_flaot("x", 0, 1), "has no attribute 'suggest_flaot'"),
        (lambda _: object(), "must return numbers, strings, lists and dicts as JSON has them"),
    ],
)
def test_a_space_that_can_not_be_is_one_line(suggest, words):
    with pytest.raises(UserError, match=re.escape(words)):
        list(space.walk(lambda t: {"x": suggest(t)}))


def test_a_space_that_gives_no_dict_is_one_line():
    suggest: Any = lambda t: [t.suggest_float("x", 0, 1)]  # noqa: E731
    with pytest.raises(UserError, match="must return a dict of params, got"):
        list(space.walk(suggest))


def test_a_name_of_two_kinds_or_of_two_sets_of_choices_is_refused():
    def two_sets(trial):
        few = trial.suggest_categorical("optimizer", ("sgd", "adam")) == "sgd"
        return {"batch_size": trial.suggest_categorical("batch_size", (16, 32) if few else (64,))}

    with pytest.raises(UserError, match=r"batch_size is \{16, 32\} or \{64\}; give the two different names"):
        space.distributions(two_sets)

    def two_ranges(trial):
        few = trial.suggest_categorical("optimizer", ("sgd", "adam")) == "sgd"
        return {"learning_rate": trial.suggest_float("learning_rate", 0.1, 1.0 if few else 0.5)}

    assert len(space.distributions(two_ranges)["learning_rate"]) == 2


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (lambda t: t.suggest_float("x", 0, 2), r"x is \[0.0, 1.0\] or \[0.0, 2.0\]"),
        (lambda t: t.suggest_int("x", 0, 1), r"x is \[0.0, 1.0\] or \[0, 1\]"),
        (lambda t: t.suggest_categorical("x", [0, 1]), r"x is \[0.0, 1.0\] or \{0, 1\}"),
    ],
)
def test_a_name_that_means_two_things_in_one_trial_is_refused(second, words):
    with pytest.raises(UserError, match=f"{words}; give the two different names"):
        list(space.walk(lambda t: {"x": t.suggest_float("x", 0, 1), "y": second(t)}))


def test_a_name_may_be_asked_for_again():
    def twice(trial):
        return {"x": trial.suggest_categorical("x", "ab"), "y": trial.suggest_categorical("x", "ab")}

    assert [branch.params for branch in space.walk(twice)] == [{"x": c, "y": c} for c in "ab"]


def test_a_grid_needs_steps():
    assert space.grid(lambda t: {"a": t.suggest_int("a", 1, 3), "b": t.suggest_categorical("b", "xy")}) == {
        "a": [1, 2, 3],
        "b": ["x", "y"],
    }
    with pytest.raises(UserError, match="range without steps"):
        space.grid(lambda t: {"a": t.suggest_float("a", 0, 1)})
