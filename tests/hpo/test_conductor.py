"""What the launching process does beside its workers."""

from concurrent.futures import Future
from typing import Any

import optuna
from rich.console import Console

from hpo.conductor import Conductor
from hpo.display import Display
from hpo.errors import StoreLockedError
from hpo.spec import StudySpec
from hpo.storage import open_store


def nothing(_: object) -> Any:
    return None


def opened(error: Exception | None = None) -> Future[None]:
    found: Future[None] = Future()
    if error is None:
        found.set_result(None)
    else:
        found.set_exception(error)
    return found


def test_a_store_of_mlflow_that_could_not_be_opened_is_told_once_and_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpo.conductor.AGAIN_SECONDS", 0.0)
    store = open_store()
    optuna.create_study(study_name="toy", storage=store.storage)
    spec = StudySpec(name="toy", suggest=lambda _: {}, prepare=nothing, metric="v", n_trials=1)
    tries = [opened(StoreLockedError("held")), opened(StoreLockedError("held")), opened()]
    conductor = Conductor(
        spec, store, "http://127.0.0.1:9", lambda: tries.pop(0), tmp_path / "trials", Display(Console(), spec),
        is_safe=False, may_grow=True,
    )  # fmt: skip

    assert conductor.go()
    conductor.on_event(0, {"event": "opened", "study_id": "id", "n_trials": 1})
    for _ in range(4):
        conductor.tick()

    assert tries == []
    assert conductor._delivery is not None
    conductor._delivery.close()
    assert capsys.readouterr().out.count("MLflow is not reached (held)") == 1
