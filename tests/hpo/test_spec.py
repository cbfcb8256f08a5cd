import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.spec import NAME, SpecError, StudySpec, check_name

GOOD = {"name": "fer", "suggest": lambda _trial: {}, "prepare": lambda _context: None, "metric": "score"}


def test_the_defaults_are_those_that_are_documented():
    spec = StudySpec(**GOOD)

    assert (spec.direction, spec.value, spec.n_trials, spec.sampler, spec.pruner) == (
        "maximize", "best", 100, "tpe", "none",
    )  # fmt: skip
    assert (spec.seed, spec.retries, spec.keep_weights, spec.enqueue) == (0, 0, 5, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../x"), ("name", "/abs"), ("name", "a\0b"), ("name", "."), ("name", "CON"), ("name", "a" * 300),
        ("name", "a\nb"), ("name", "fer{0}"), ("name", "a\u200fb"), ("name", ""), ("name", None), ("suggest", 3),
        ("prepare", None), ("metric", ""), ("metric", "best_x"), ("metric", "test_x"), ("direction", "up"),
        ("value", "mean"), ("n_trials", 0), ("n_trials", 10**12), ("n_trials", 1.5), ("n_trials", True),
        ("timeout_seconds", -1), ("timeout_seconds", math.nan), ("sampler", "cmaes"), ("pruner", "x"),
        ("pruner", "hyperband"), ("scheduler", "x"), ("seed", -1), ("retries", -1), ("keep_weights", None),
        ("enqueue", {"a": 1}), ("reuse_epochs", "yes"), ("step_cost", "euros"), ("summarize", 1), ("max_epochs", 0),
    ],
)  # fmt: skip
def test_a_value_that_can_not_be_is_refused_by_its_field(field, value):
    with pytest.raises(SpecError) as caught:
        StudySpec(**{**GOOD, field: value})

    named = "max_epochs" if value == "hyperband" else field
    assert list(caught.value.faults) == [named]
    assert "got" in caught.value.faults[named] or named == "name"


def test_all_faults_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        StudySpec(**{**GOOD, "name": "", "n_trials": 0, "seed": -1})

    assert set(caught.value.faults) == {"name", "n_trials", "seed"}


@given(st.text(max_size=70))
def test_a_name_that_is_accepted_is_a_plain_file_name(name):
    if check_name(name) is None:
        assert NAME.fullmatch(name)
        assert not set(name) & set("/\\\0:{}\n ")
