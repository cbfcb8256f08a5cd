"""Schedulers that pause, as pure functions over histories: whatever a study has seen, they answer within its bounds."""

import math
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.schedulers.named import make_scheduler
from hpo.schedulers.protocol import (
    DECISIONS,
    RESTED,
    Continue,
    Decision,
    Done,
    History,
    Start,
    Step,
    Wait,
    has_its_epochs,
)
from hpo.spec import StudySpec

PAUSING = ("asha", "freeze_thaw")
LONGEST = 9


def suggest(trial):
    kind = trial.suggest_categorical("kind", ["a", "b"])
    depth = trial.suggest_int("depth", 1, 3) if kind == "b" else 1
    return {"kind": kind, "depth": depth, "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True)}


def spec(**fields) -> StudySpec:
    settings = {
        "name": "s", "suggest": suggest, "prepare": lambda _c: None, "metric": "m", "seed": 3, "sampler": "random",
        "max_epochs": LONGEST, "n_trials": None, "n_epochs": 60, **fields,
    }  # fmt: skip
    return StudySpec(**settings)


def good(params: dict, epoch: int) -> float:
    """A curve of its own for each configuration."""
    top = 1 - abs(math.log10(params["rate"]) + 2) / 2 - 0.1 * params["depth"]
    return top * (1 - math.exp(-(epoch + 1) / 3))


class Played:
    """A study that is carried out in memory, by one worker or several."""

    def __init__(self, study: StudySpec, value=good, n_trials: int | None = None) -> None:
        self.study, self.value, self.n_trials = study, value, n_trials
        self.trials: list[FrozenTrial] = []
        self.at_work: dict[int, int] = {}
        self.decisions: list[Decision] = []

    def history(self) -> History:
        running = {t.number for t in self.trials if t.state == TrialState.RUNNING}
        return History(self.study, self.n_trials, self.trials, frozenset(running - set(self.at_work)))

    def decide(self) -> Decision:
        decision = make_scheduler(self.study).decide(self.history())
        self.decisions.append(decision)
        order = sum(len(t.user_attrs.get(DECISIONS, [])) for t in self.trials)
        if isinstance(decision, Start):
            suggested = decision.suggested
            trial = create_trial(
                state=TrialState.RUNNING, params=dict(suggested.suggested), distributions=dict(suggested.distributions),
                user_attrs={"hpo.params": dict(suggested.params), **suggested.user_attrs},
                system_attrs=dict(suggested.system_attrs),
            )  # fmt: skip
            trial.number = len(self.trials)
            self.trials.append(trial)
        elif isinstance(decision, Continue):
            trial = self.trials[decision.number]
        else:
            return decision
        reached = len(trial.intermediate_values)
        step = Step(order, trial.number, reached, decision.until_epoch, decision.why)
        trial.user_attrs[DECISIONS] = [*trial.user_attrs.get(DECISIONS, []), step.to_json()]
        self.at_work[trial.number] = LONGEST if decision.until_epoch is None else decision.until_epoch
        return decision

    def finish(self, number: int) -> None:
        trial, until = self.trials[number], self.at_work.pop(number)
        for epoch in range(len(trial.intermediate_values), until):
            value = self.value(trial.user_attrs["hpo.params"], epoch)
            if not math.isfinite(value):
                trial.state, trial.user_attrs["hpo.reason"] = TrialState.PRUNED, "diverged: m is nan"
                return
            trial.intermediate_values[epoch] = value
        if until >= LONGEST:
            trial.state = TrialState.COMPLETE
            trial.values = [max(trial.intermediate_values.values())]

    def play(self, n_workers: int = 1, most: int = 500) -> str:
        for _ in range(most):
            decision = self.decide()
            if isinstance(decision, Done):
                return decision.reason
            if isinstance(decision, Wait) or len(self.at_work) >= n_workers:
                self.finish(min(self.at_work))
        raise AssertionError("the study does not end")

    def n_epochs(self) -> int:
        return sum(len(t.intermediate_values) for t in self.trials)


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize("n_workers", [1, 4])
def test_a_budget_of_epochs_is_met_exactly(scheduler, n_workers):
    played = Played(spec(scheduler=scheduler))

    reason = played.play(n_workers)

    assert played.n_epochs() == 60
    assert reason == "all 60 epochs are trained"
    assert max(len(t.intermediate_values) for t in played.trials) <= LONGEST


@pytest.mark.parametrize("scheduler", PAUSING)
def test_it_continues_what_is_best(scheduler):
    played = Played(spec(scheduler=scheduler, n_epochs=150))

    played.play()

    early = played.trials[: len(played.trials) // 2]  # what is begun last has no time to show itself
    possible = max(good(t.user_attrs["hpo.params"], LONGEST - 1) for t in early)
    found = max(v for t in played.trials for v in t.intermediate_values.values())
    assert any(isinstance(d, Continue) for d in played.decisions)
    assert found > possible - 0.02


@pytest.mark.parametrize("scheduler", PAUSING)
def test_the_same_history_gives_the_same_decision_whoever_is_asked(scheduler):
    first, second = Played(spec(scheduler=scheduler)), Played(spec(scheduler=scheduler))

    first.play()
    second.play()

    assert [repr(d) for d in first.decisions] == [repr(d) for d in second.decisions]


@pytest.mark.parametrize("scheduler", PAUSING)
def test_without_a_budget_of_epochs_it_ends_when_its_trials_are_started_and_no_more_is_to_be_had(scheduler):
    played = Played(spec(scheduler=scheduler, n_epochs=None), n_trials=12)

    played.play()

    assert len(played.trials) == 12
    best = max(played.trials, key=lambda t: max(t.intermediate_values.values()))
    assert best.state == TrialState.COMPLETE


def test_the_first_few_get_an_epoch_each_and_are_balanced_over_the_first_choice():
    played = Played(spec(scheduler="freeze_thaw"))

    for _ in range(8):
        played.decide()
        played.finish(max(played.at_work))

    assert [d.until_epoch for d in played.decisions] == [1] * 8
    kinds = [t.params["kind"] for t in played.trials]
    assert kinds.count("a") == kinds.count("b") == 4


def test_what_is_enqueued_comes_first_and_is_paused_like_others():
    played = Played(spec(scheduler="freeze_thaw", enqueue=({"kind": "b", "depth": 2, "rate": 0.01},)))

    decision = played.decide()

    assert isinstance(decision, Start)
    assert decision.suggested.suggested == {"kind": "b", "depth": 2, "rate": 0.01}
    assert decision.until_epoch == 1


@pytest.mark.parametrize("scheduler", PAUSING)
def test_a_trials_own_epochs_are_its_horizon(scheduler):
    def short(trial):
        return {**suggest(trial), "epochs": trial.suggest_int("epochs", 2, 5)}

    played = Played(spec(scheduler=scheduler, suggest=short, n_epochs=90))
    for _ in range(40):
        decision = played.decide()
        if isinstance(decision, Done):
            break
        number = min(played.at_work)
        own = played.trials[number].user_attrs["hpo.params"]["epochs"]
        assert played.at_work[number] <= own
        played.finish(number)
        if len(played.trials[number].intermediate_values) == own:
            played.trials[number].state = TrialState.COMPLETE


def test_the_models_answer_says_why():
    played = Played(spec(scheduler="freeze_thaw", n_epochs=40))
    played.play()

    modelled = [d.why for d in played.decisions if isinstance(d, Start | Continue) and d.why["by"] == "freeze_thaw"]

    assert modelled
    assert all({"mean", "spread", "chance", "runner_up"} <= set(why) for why in modelled)


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize(
    "value", [lambda _p, _e: math.nan, lambda _p, _e: 0.5, lambda p, _e: math.copysign(1e308, p["rate"])]
)
def test_curves_that_say_nothing_get_an_answer_within_the_budget(scheduler, value):
    played = Played(spec(scheduler=scheduler, n_epochs=40), value, n_trials=50)

    played.play()

    assert played.n_epochs() <= 40


def a_trial(number: int, values: list[float], state: TrialState, until: int) -> FrozenTrial:
    params = {"kind": "a", "rate": 10 ** -(number % 7 / 2)}
    trial = create_trial(
        state=TrialState.RUNNING, params={}, distributions={}, intermediate_values=dict(enumerate(values)),
        user_attrs={"hpo.params": {**params, "depth": 1}, DECISIONS: [Step(number, number, 0, until, {}).to_json()]},
    )  # fmt: skip
    trial.params = params
    trial.number, trial.state = number, state
    return trial


histories = st.lists(
    st.tuples(
        st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.5, math.inf, -math.inf, math.nan])), max_size=LONGEST),
        st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]),
        st.booleans(),
    ),
    max_size=12,
)


@pytest.mark.parametrize("scheduler", PAUSING)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shown=histories,
    n_trials=st.one_of(st.none(), st.integers(1, 15)),
    n_epochs=st.one_of(st.none(), st.integers(1, 200)),
)
def test_any_history_gets_a_decision_that_can_be_carried_out(scheduler, shown, n_trials, n_epochs):
    study = spec(scheduler=scheduler, n_epochs=n_epochs)
    trials = [a_trial(i, values, state, max(1, len(values))) for i, (values, state, _) in enumerate(shown)]
    paused = frozenset(
        i for i, (values, state, rests) in enumerate(shown)
        if state == TrialState.RUNNING and rests and 0 < len(values) < LONGEST
    )  # fmt: skip
    history = History(study, n_trials, trials, paused)

    decision = make_scheduler(study).decide(history)

    assert repr(decision) == repr(make_scheduler(study).decide(history))
    left = history.epochs_left()
    if isinstance(decision, Start):
        assert n_trials is None or history.n_started() < n_trials
        assert decision.until_epoch is not None
        assert 1 <= decision.until_epoch <= LONGEST
        assert left is None or decision.until_epoch <= left
    elif isinstance(decision, Continue):
        assert decision.number in paused
        reached = len(trials[decision.number].intermediate_values)
        assert decision.until_epoch is not None
        assert reached < decision.until_epoch <= LONGEST
        assert left is None or decision.until_epoch - reached <= left
    elif isinstance(decision, Done):
        assert not history.running()


@pytest.mark.parametrize("scheduler", PAUSING)
def test_five_thousand_trials_get_an_answer_in_bounded_time(scheduler):
    study = spec(scheduler=scheduler, n_epochs=10**6)
    values = [[0.3 + 0.1 * math.sin(i), 0.4 + 0.2 * math.sin(i)][: 1 + i % 2] for i in range(5_000)]
    trials = [a_trial(i, v, TrialState.RUNNING, len(v)) for i, v in enumerate(values)]
    began = time.monotonic()

    decision = make_scheduler(study).decide(History(study, None, trials, frozenset(range(5_000))))

    assert isinstance(decision, Start | Continue)
    assert time.monotonic() - began < 60  # bounded: some seconds, not minutes, on a busy machine


def test_the_scheduler_in_the_docs_works_as_it_stands():
    text = (Path(__file__).parents[3] / "docs" / "schedulers.md").read_text()
    source = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(source, names)  # noqa: S102  our own example
    played = Played(spec(scheduler=names["Screen"], n_epochs=None), n_trials=6)

    played.play()

    lengths = sorted(len(t.intermediate_values) for t in played.trials)
    assert lengths == [1] * 5 + [LONGEST]
    assert len(source.splitlines()) < 60


def test_a_configuration_that_failed_is_not_proposed_again():
    played = Played(spec(scheduler="freeze_thaw"))
    for _ in range(6):
        played.decide()
        number = max(played.at_work)
        played.at_work.pop(number)
        played.trials[number].state = TrialState.FAIL

    assert len({t.params["rate"] for t in played.trials}) == 6


def test_epochs_in_which_trials_diverge_count_so_that_a_study_ends():
    played = Played(spec(scheduler="freeze_thaw", n_epochs=12), value=lambda _p, _e: math.nan)

    assert played.play() == "all 12 epochs are trained"
    assert len(played.trials) == 12


@pytest.mark.parametrize("seed", range(6))
def test_a_study_with_a_budget_of_trials_ends_with_its_best_trained_to_the_end(seed):
    def early(params, epoch):
        return good(params, 3) - 0.01 * max(0, epoch - 3) if epoch else good(params, 0)

    played = Played(spec(scheduler="freeze_thaw", n_epochs=None, seed=seed), early, n_trials=12)
    played.play()

    best = max(played.trials, key=lambda t: (max(t.intermediate_values.values()), -t.number))
    assert best.state == TrialState.COMPLETE


@pytest.mark.parametrize("seed", range(6))
def test_a_study_with_a_budget_of_epochs_ends_with_its_best_trained_to_the_end(seed):
    played = Played(spec(scheduler="freeze_thaw", n_epochs=100, seed=seed))
    played.play()

    # A better one may come up with the last epochs; what was best when 15 % were left was kept an end for.
    complete = [max(t.intermediate_values.values()) for t in played.trials if t.state == TrialState.COMPLETE]
    best = max(max(t.intermediate_values.values()) for t in played.trials)
    assert complete
    assert max(complete) > best - 0.05


def test_choices_that_no_store_can_keep_are_refused():
    from hpo.errors import UserError
    from hpo.space import walk

    with pytest.raises(UserError, match="layers has the choice"):
        list(walk(lambda t: {"layers": t.suggest_categorical("layers", [[1, 2], [3]])}))


def test_a_space_of_a_few_choices_is_tried_once_each_and_then_done():
    def few(trial):
        return {
            "kind": trial.suggest_categorical("kind", ["a", "b", "c"]),
            "depth": trial.suggest_int("depth", 1, 2),
            "rate": 0.1,
        }

    played = Played(spec(scheduler="freeze_thaw", suggest=few, n_epochs=500))

    assert played.play() == "every trial is at its end"
    tried = [tuple(t.params.items()) for t in played.trials]
    assert len(tried) == len(set(tried)) == 6


def test_a_configuration_is_started_again_only_when_its_own_epochs_are_used_up():
    def with_epochs(trial):
        return {
            "kind": trial.suggest_categorical("kind", ["a", "b", "c"]),
            "depth": 1,
            "rate": 0.1,
            "epochs": trial.suggest_int("epochs", 2, LONGEST),
        }

    played = Played(spec(scheduler="freeze_thaw", suggest=with_epochs, n_epochs=200))
    played.play()

    assert len(played.trials) > 3
    for later in played.trials:
        for earlier in played.trials[: later.number]:
            if earlier.params["kind"] == later.params["kind"]:
                assert earlier.params["epochs"] < later.params["epochs"]


def test_a_trial_that_was_killed_before_it_came_to_rest_is_not_paused():
    decided = Step(0, 0, 2, 4, {}).to_json()
    reported = dict.fromkeys(range(4), 0.5)
    trial = create_trial(state=TrialState.RUNNING, intermediate_values=reported, user_attrs={DECISIONS: [decided]})

    assert not has_its_epochs(spec(), trial)
    trial.set_user_attr(RESTED, 2)  # as it was when it was paused before
    assert not has_its_epochs(spec(), trial)
    trial.set_user_attr(RESTED, 4)
    assert has_its_epochs(spec(), trial)
