"""When a search is over, and time is left, it is confirmed."""

from argparse import Namespace
from typing import Any

import optuna
import pytest

from hpo.confirm import confirm_at_end
from hpo.names import OVER
from hpo.plan import kept_budget
from hpo.spec import StudySpec
from hpo.storage import open_store


def nothing(_: object) -> Any:
    return None


@pytest.mark.parametrize(("searched", "left"), [(4.0, 6.0), (10.0, None), (11.0, None)])
def test_a_confirmation_has_the_time_that_the_search_has_left(tmp_path, monkeypatch, capsys, searched, left):
    spec = StudySpec(name="toy", suggest=lambda _: {}, prepare=nothing, metric="v", n_trials=20)
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    study = optuna.create_study(study_name="toy", storage=open_store(url).storage)
    study.set_user_attr(OVER, {"budget": kept_budget(spec, 20)})
    given = []

    def confirmed(_spec, options, *_):
        given.append(options.timeout)
        return 0

    monkeypatch.setattr("hpo.confirm.confirm", confirmed)

    assert confirm_at_end(spec, Namespace(storage=url, timeout=10.0), searched) == 0

    assert given == ([] if left is None else [left])
    assert ("is confirmed when it is done" in capsys.readouterr().out) == (left is None)
