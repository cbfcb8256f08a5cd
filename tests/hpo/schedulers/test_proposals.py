"""What a sampler is shown of a study."""

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.schedulers.proposals import MANY, propose, within
from hpo.schedulers.protocol import History
from hpo.spec import StudySpec

X = {"x": optuna.distributions.FloatDistribution(0, 1)}


def spec(**fields) -> StudySpec:
    given = {"name": "s", "prepare": lambda _: None, "metric": "v", "n_trials": None, "sampler": "random"}
    return StudySpec(suggest=lambda trial: {"x": trial.suggest_float("x", 0, 1)}, **{**given, **fields})


def trials(n: int, running: tuple[int, ...] = ()) -> list[FrozenTrial]:
    """Trials whose values rise and fall: the best are those whose number is a multiple of 100."""
    made = []
    for number in range(n):
        is_running = number in running
        one = create_trial(
            state=TrialState.RUNNING if is_running else TrialState.COMPLETE,
            value=None if is_running else -float(number % 100), params={"x": 0.5}, distributions=X,
        )  # fmt: skip
        one.number = number
        made.append(one)
    return made


def test_of_very_many_trials_the_best_the_latest_and_those_at_work_are_shown():
    history = History(spec(sampler_trials=50), None, trials(MANY + 500, running=(7,)))

    shown = [t.number for t in within(history, list(history.trials))]

    assert len(shown) == 51
    assert shown == [0, 7, *range(100, 1000, 100), *range(1460, 1500)]


@pytest.mark.parametrize("limit", [None, 50, 5_000])
def test_up_to_a_thousand_and_where_no_limit_is_met_all_are_shown(limit):
    few = History(spec(sampler_trials=limit), None, trials(MANY))
    many = History(spec(sampler_trials=limit), None, trials(MANY + 10))

    assert len(within(few, list(few.trials))) == MANY
    if limit != 50:
        assert len(within(many, list(many.trials))) == MANY + 10


def test_what_is_shown_is_not_copied_and_the_next_trial_has_its_number():
    seen, best = [], []

    class Watching(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            seen.append((trial.number, study.get_trials(deepcopy=False)))
            best.append(study.best_trial.number)
            return super().sample_independent(study, trial, param_name, param_distribution)

    given = trials(5, running=(4,))

    started = propose(spec(sampler=Watching), History(spec(), None, given))

    assert started is not None
    ((number, shown),) = seen
    assert number == 5
    assert len(shown) == 6
    assert all(a is b for a, b in zip(shown[:5], given, strict=True))
    assert shown[5].number == 5
    assert best == [0]
    assert [t.number for t in given] == [0, 1, 2, 3, 4]


def test_the_benchmark_of_the_bound_measures_the_default():
    from benchmarks.bounded import BOUND

    assert spec().sampler_trials == BOUND
