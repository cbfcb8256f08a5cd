"""What is left of a study's budget is told in the unit that it has."""

import pytest
from optuna.trial import TrialState, create_trial

from hpo.preflight import _needs, forecast
from hpo.spec import StudySpec


def spec(**change) -> StudySpec:
    return StudySpec(name="s", suggest=lambda _: {}, prepare=lambda _: None, metric="m", **change)  # type: ignore[return-value]


def trial(n_epochs: int):
    state = TrialState.PRUNED if n_epochs else TrialState.FAIL
    return create_trial(state=state, intermediate_values=dict.fromkeys(range(n_epochs), 0.5))


CANDIDATES = [{"epochs": 3}, {"epochs": 8}]
TRIALS = [trial(2), trial(0), trial(5)]


@pytest.mark.parametrize(
    ("change", "n_trials", "words", "least"),
    [
        ({}, 10, "8 trials: at most 2 to 4 minutes", 128.0),
        ({"max_epochs": 2}, 10, "8 trials: at most 32 seconds to 64 seconds", 32.0),
        ({"n_epochs": 17}, None, "10 epochs: at most 20 to 40 seconds", 20.0),
        ({"n_epochs": 17}, 3, "1 trial: at most 16 to 32 seconds", 16.0),
        ({"timeout_seconds": 60.0, "n_trials": None}, None, "its budget is time", 0.0),
        ({"n_trials": None}, None, "it has no end but the one that you give it", 0.0),
    ],
)
def test_a_forecast_is_of_what_is_left(change, n_trials, words, least):
    found = forecast(spec(**change), n_trials, TRIALS, CANDIDATES, (2.0, 4.0))

    assert found == (words.replace("32 seconds to 64", "32 to 64"), least)


class Trainer:
    def __init__(self, told):
        self.told = told

    def estimate(self, candidates):
        return self.told


def test_an_estimate_that_is_no_pair_is_a_warning_and_no_estimate(caplog):
    assert _needs(Trainer({"epoch_seconds": (1, 2)}), CANDIDATES) == {"epoch_seconds": (1.0, 2.0)}
    assert _needs(Trainer({"epoch_seconds": 1.0}), CANDIDATES) == {}
    assert "what a trial needs is not known" in caplog.text
    assert _needs(object(), CANDIDATES) == {}
