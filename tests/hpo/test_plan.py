"""What a confirmation trains: the best distinct configurations and the baseline, in pairs by seed."""

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.plan import affordable, chosen, less_kept, plan_from_json, results, sibling, trials_less_kept
from hpo.preflight import candidates_of
from hpo.schedulers.proposals import ENQUEUED
from hpo.schedulers.protocol import Done, History, Start
from hpo.seeds import trial_seed
from hpo.spec import StudySpec

BASELINE = {"x": 0.5}


def suggest(trial):
    return {"x": trial.suggest_float("x", 0, 1)}


def spec(**fields) -> StudySpec:
    given = {
        "name": "toy",
        "suggest": suggest,
        "prepare": lambda _: None,
        "metric": "score",
        "enqueue": (BASELINE,),
    }
    return StudySpec(**{**given, **fields})


def trial(number, x, value, state=TrialState.COMPLETE, **attrs):
    made = create_trial(
        state=state, value=value if state == TrialState.COMPLETE else None, params={"x": x},
        distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
        user_attrs={"hpo.params": {"x": x}, **attrs}, intermediate_values={0: value} if value is not None else {},
    )  # fmt: skip
    made.number = number
    return made


TRIALS = [
    trial(0, 0.5, 0.3, **{ENQUEUED: BASELINE}),
    trial(1, 0.1, 0.9),
    trial(2, 0.1, 0.8),
    trial(3, 0.2, 0.7),
    trial(4, 0.3, None, TrialState.FAIL),
]


def test_the_best_distinct_configurations_and_the_baseline_are_trained():
    plan = chosen(spec(), TRIALS, [], top=2, n_seeds=3, study_id="abc")

    assert plan is not None
    assert plan.configurations == {1: {"x": 0.1}, 3: {"x": 0.2}, 0: {"x": 0.5}}
    assert plan.searched == {1: 0.9, 3: 0.7, 0: 0.3}
    assert plan.baseline == 0
    assert plan.n_trials == 9
    assert plan_from_json(plan.to_json()) == plan


def test_a_baseline_among_the_best_is_trained_once():
    plan = chosen(
        spec(), [trial(0, 0.5, 0.95, **{ENQUEUED: BASELINE}), *TRIALS[1:]], [], top=2, n_seeds=2, study_id="abc"
    )

    assert plan is not None
    assert list(plan.configurations) == [0, 1]
    assert plan.baseline == 0


def test_nothing_is_planned_where_no_trial_has_a_value():
    assert chosen(spec(), TRIALS[4:], [], top=2, n_seeds=2, study_id="abc") is None


def test_every_configuration_meets_a_seed_before_the_next_one_and_all_share_it():
    plan = chosen(spec(), TRIALS, [], top=2, n_seeds=2, study_id="abc")
    assert plan is not None
    beside = sibling(spec(), plan)
    history: list[FrozenTrial] = []
    pairs: list[tuple[int, int, dict[str, float]]] = []
    for _ in range(6):
        decision = beside.scheduler(beside).decide(History(beside, beside.n_trials, history))
        assert isinstance(decision, Start)
        made = decision.suggested
        pairs.append((made.suggested["seed"], made.suggested["configuration"], made.params))
        history.append(
            create_trial(
                params=made.suggested, distributions=made.distributions, value=1.0, user_attrs={**made.user_attrs}
            )
        )
        history[-1].number = len(history) - 1

    assert [(seed, number) for seed, number, _ in pairs] == [(0, 1), (0, 3), (0, 0), (1, 1), (1, 3), (1, 0)]
    assert [params for _, _, params in pairs[:3]] == [{"x": 0.1}, {"x": 0.2}, {"x": 0.5}]
    assert isinstance(beside.scheduler(beside).decide(History(beside, beside.n_trials, history)), Done)
    assert beside.seed_by == "seed"
    fresh = {trial_seed(beside.seed, seed) for seed in range(2)}
    assert not fresh & {trial_seed(spec().seed, number) for number in range(1000)}


def retrained(number, seed, value, state=TrialState.COMPLETE, at=0, **attrs):
    made = create_trial(
        state=state, value=value, user_attrs=attrs, params={"configuration": number, "seed": seed},
        distributions={
            "configuration": optuna.distributions.IntDistribution(0, 100), "seed": optuna.distributions.IntDistribution(0, 9)
        },
    )  # fmt: skip
    made.number = at
    return made


def test_results_come_by_configuration_and_seed_and_what_failed_is_left_out_with_its_reason():
    plan = chosen(spec(), TRIALS, [], top=1, n_seeds=2, study_id="abc")
    assert plan is not None
    trials = [
        retrained(1, 1, 0.7, at=3),
        retrained(1, 0, 0.6, at=1),
        retrained(0, 0, 0.2, at=2),
        retrained(0, 1, None, TrialState.FAIL, at=4, **{"hpo.reason": "ValueError: no\nmore"}),
    ]

    found, lost = results(plan, trials)

    assert [(one.trial, one.values, one.trials) for one in found] == [(1, (0.6, 0.7), (1, 3))]
    assert lost == ["the configuration of trial 0 on seed 1: ValueError: no"]
    assert results(plan, trials[:1]) == ([], [])


def test_more_seeds_later_keep_what_is_trained():
    before = [
        create_trial(
            params={"configuration": n, "seed": 0}, value=0.5, user_attrs={ENQUEUED: {"configuration": n, "seed": 0, "attempt": 0}},
            distributions={
                "configuration": optuna.distributions.IntDistribution(0, 100), "seed": optuna.distributions.IntDistribution(0, 9)
            },
        )
        for n in (1, 3, 0)
    ]  # fmt: skip

    plan = chosen(spec(), TRIALS, before, top=2, n_seeds=2, study_id="abc")

    assert plan is not None
    assert plan.n_trials == 6


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"n_trials": 100}, (3, 3)),
        ({"n_trials": 10}, (2, 2)),
        ({"n_trials": None, "n_epochs": 4_000, "max_epochs": 20}, (5, 5)),
        ({"n_trials": 100, "n_epochs": 400, "max_epochs": 10}, (2, 2)),
    ],
)
def test_what_is_kept_of_the_budget_pays_for_it_and_at_least_two_by_two(fields, size):
    of = spec(**fields)
    assert affordable(of, of.n_trials, TRIALS if "n_epochs" not in fields else []) == size


def test_the_search_has_the_rest():
    left = less_kept(spec(n_trials=100, n_epochs=1000, timeout_seconds=200))

    assert (left.n_trials, left.n_epochs, left.timeout_seconds) == (100, 850, 170)
    assert (trials_less_kept(100), trials_less_kept(1), trials_less_kept(None)) == (85, 1, None)


def test_what_has_failed_is_tried_again_on_the_same_seed():
    plan = chosen(spec(), TRIALS, [], top=1, n_seeds=1, study_id="abc")
    assert plan is not None
    pairs = list(plan.pairs())
    retrained_ones = [retrained(1, 0, 0.6, at=0), retrained(0, 0, None, TrialState.FAIL, at=1)]
    for made, pair in zip(retrained_ones, pairs, strict=True):
        made.set_user_attr(ENQUEUED, pair)

    again = chosen(spec(), TRIALS, retrained_ones, top=1, n_seeds=1, study_id="abc")

    assert again is not None
    assert again.n_trials == 3
    assert list(again.pairs()) == [pairs[0], {**pairs[1], "attempt": 1}]
    assert plan_from_json(again.to_json()) == again
    found, lost = results(again, [*retrained_ones, retrained(0, 0, 0.4, at=2)])
    assert not lost
    assert [one.trials for one in found] == [(0,), (2,)]


def test_what_it_needs_is_measured_on_all_that_it_trains():
    plan = chosen(spec(), TRIALS, [], top=2, n_seeds=1, study_id="abc")
    assert plan is not None

    assert {params["x"] for params in candidates_of(sibling(spec(), plan))} == {0.1, 0.2, 0.5}
