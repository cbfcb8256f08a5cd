"""The picture of a search."""

import optuna
from optuna.trial import TrialState, create_trial

from hpo.schedulers.protocol import DECISIONS, Step
from hpo.spec import StudySpec
from hpo.timeline import draw


def no_trainer(_context):
    raise NotImplementedError


def spec():
    return StudySpec(name="s", suggest=lambda _t: {}, prepare=no_trainer, metric="m")


def a_trial(number: int, values: list[float], steps: list[Step]) -> optuna.trial.FrozenTrial:
    trial = create_trial(
        state=TrialState.PRUNED, intermediate_values=dict(enumerate(values)),
        user_attrs={DECISIONS: [s.to_json() for s in steps]},
    )  # fmt: skip
    trial.number = number
    return trial


def test_it_is_drawn_with_and_without_a_models_expectations():
    plain = a_trial(0, [0.1, 0.2], [Step(0, 0, 0, None, {"by": "asha"})])
    modelled = a_trial(1, [0.3, 0.4], [Step(1, 1, 0, 1, {}), Step(2, 1, 1, 2, {"mean": 0.5, "spread": 0.1})])

    for trials in ([plain], [plain, modelled]):
        picture = draw(spec(), trials)
        assert picture is not None
        assert picture.startswith(b"\x89PNG")


def test_nothing_trained_is_no_picture():
    assert draw(spec(), []) is None
    assert draw(spec(), [a_trial(0, [], [Step(0, 0, 0, 1, {})])]) is None
