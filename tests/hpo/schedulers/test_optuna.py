"""The scheduler is a pure function of the history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import UserError
from hpo.schedulers.optuna import OptunaScheduler
from hpo.schedulers.proposals import make_pruner
from hpo.schedulers.protocol import Done, History, Start, Wait
from hpo.spec import PRUNERS, SAMPLERS, StudySpec


def suggest(trial):
    return {"x": trial.suggest_int("x", 0, 3), "kind": trial.suggest_categorical("kind", ["a", "b"])}


def spec(**fields) -> StudySpec:
    return StudySpec(
        **{"name": "s", "suggest": suggest, "prepare": lambda _c: None, "metric": "m", "seed": 3, **fields}
    )


def started(decision: Start, number: int, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    proposed = decision.suggested
    value = None if state != TrialState.COMPLETE else float(proposed.suggested["x"])
    trial = create_trial(
        state=state, value=value, params=dict(proposed.suggested), distributions=dict(proposed.distributions),
        user_attrs=dict(proposed.user_attrs), system_attrs=dict(proposed.system_attrs),
        intermediate_values={} if value is None else {0: value},
    )  # fmt: skip
    trial.number = number
    return trial


def play(study: StudySpec, n: int) -> list[dict]:
    """What a search proposes when every trial is complete at once; scheduler and history made anew each time."""
    trials: list[FrozenTrial] = []
    attrs: dict[str, object] = {}
    for number in range(n):
        decision = OptunaScheduler(study).decide(History(study, None, trials, study_attrs=dict(attrs)))
        if not isinstance(decision, Start):
            break
        attrs.update(decision.suggested.study_attrs)
        trials.append(started(decision, number))
    return [dict(t.params) for t in trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_gives_the_same_proposals(sampler):
    assert play(spec(sampler=sampler), 6) == play(spec(sampler=sampler), 6)


def test_another_seed_gives_others():
    assert play(spec(sampler="random"), 8) != play(spec(sampler="random", seed=4), 8)


def test_qmc_goes_on_in_its_sequence():
    points = play(spec(sampler="qmc"), 9)

    assert len({(p["x"], p["kind"]) for p in points}) > 4


def test_a_grid_visits_every_cell_once_and_is_done():
    cells = play(spec(sampler="grid"), 100)

    assert len(cells) == len({tuple(sorted(c.items())) for c in cells}) == 8


def test_what_is_enqueued_comes_first_and_once():
    study = spec(enqueue=({"x": 2, "kind": "b"}, {"x": 0}))

    first, second, *others = play(study, 5)

    assert first == {"x": 2, "kind": "b"}
    assert second["x"] == 0
    assert len(others) == 3


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_that_is_offered_can_be_made(pruner):
    assert make_pruner(spec(pruner=pruner, max_epochs=9)) is not None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]), max_size=8
    ),
    st.integers(1, 6),
)
def test_the_budget_of_trials_is_never_exceeded(states, n_trials):
    study = spec(sampler="random")
    first = OptunaScheduler(study).decide(History(study, None, []))
    trials = [started(first, i, state) for i, state in enumerate(states)]
    running = [t.number for t in trials if t.state == TrialState.RUNNING]

    decision = OptunaScheduler(study).decide(History(study, n_trials, trials))

    if sum(state != TrialState.FAIL for state in states) < n_trials:
        assert isinstance(decision, Start)
    else:
        assert isinstance(decision, Wait if running else Done)


def test_a_grid_gives_no_running_cell_twice_and_a_failed_one_again():
    study = spec(sampler="grid")
    trials: list[FrozenTrial] = []
    for number in range(8):
        decision = OptunaScheduler(study).decide(History(study, None, trials))
        assert isinstance(decision, Start)
        trials.append(started(decision, number, TrialState.RUNNING))
    assert len({tuple(sorted(t.params.items())) for t in trials}) == 8
    assert isinstance(OptunaScheduler(study).decide(History(study, None, trials)), Wait)

    failed = started(Start(decision.suggested), 7, TrialState.FAIL)
    again = OptunaScheduler(study).decide(History(study, None, [*trials[:7], failed]))

    assert isinstance(again, Start)
    assert again.suggested.suggested == failed.params


def test_what_somebody_put_into_the_store_is_run_once_with_its_params():
    study = spec(sampler="random")
    waiting = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 3}})
    waiting.number = 0

    decision = OptunaScheduler(study).decide(History(study, 2, [waiting]))

    assert isinstance(decision, Start)
    assert decision.waiting == 0
    assert decision.suggested.suggested["x"] == 3
    done = started(decision, 0)
    assert OptunaScheduler(study).decide(History(study, 2, [done])).waiting is None


def test_a_suggest_that_raises_is_told_as_the_users():
    def broken(trial):
        if trial.suggest_float("x", 0, 1) not in {0, 0.5, 1}:
            raise RuntimeError("only here")
        return {}

    study = spec(suggest=broken)
    with pytest.raises(UserError, match="no proposal for trial 0: RuntimeError: only here"):
        OptunaScheduler(study).decide(History(study, 2, []))
