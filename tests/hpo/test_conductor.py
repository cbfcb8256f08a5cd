"""What the launching process does beside its workers."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from rich.console import Console

from hpo.conductor import Conductor
from hpo.display import Display
from hpo.errors import StoreLockedError
from hpo.spec import StudySpec
from hpo.storage import Store, open_store


def nothing(_: object) -> Any:
    return None


def opened(error: Exception | None = None) -> Future[None]:
    found: Future[None] = Future()
    if error is None:
        found.set_result(None)
    else:
        found.set_exception(error)
    return found


def conductor_of(folder: Path, store: Store, open_tracking: Callable[[], Future[None]]) -> Conductor:
    spec = StudySpec(name="toy", suggest=lambda _: {}, prepare=nothing, metric="v", n_trials=1)
    return Conductor(
        spec, store, "http://127.0.0.1:9", open_tracking, folder / "trials", Display(Console(), spec),
        is_safe=False, may_grow=True,
    )  # fmt: skip


def test_a_store_of_mlflow_that_could_not_be_opened_is_told_once_and_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpo.conductor.AGAIN_SECONDS", 0.0)
    store = open_store()
    optuna.create_study(study_name="toy", storage=store.storage)
    tries = [opened(StoreLockedError("held")), opened(StoreLockedError("held")), opened()]
    conductor = conductor_of(tmp_path, store, lambda: tries.pop(0))

    assert conductor.go()
    conductor.on_event(0, {"event": "opened", "study_id": "id", "n_trials": 1})
    for _ in range(4):
        conductor.tick()

    assert tries == []
    assert conductor._delivery is not None
    conductor._delivery.close()
    assert capsys.readouterr().out.count("MLflow is not reached (held)") == 1


@pytest.mark.parametrize(
    ("stop_signal", "stopping_for", "seconds", "gives_up"),
    [(15, 1.0, 0.5, False), (15, 1.0, 2.5, True), (15, 9.0, 0.5, True), (None, 0.0, 30.0, False)],
)
def test_mlflow_is_waited_for_at_the_end_but_not_past_the_ten_seconds_of_a_signal(
    tmp_path, monkeypatch, stop_signal, stopping_for, seconds, gives_up
):
    monkeypatch.chdir(tmp_path)
    store, asked = open_store(), list[bool]()
    optuna.create_study(study_name="toy", storage=store.storage)
    conductor = conductor_of(tmp_path, store, opened)
    conductor.on_event(0, {"event": "opened", "study_id": "id", "n_trials": 1})

    def drain(_: object, give_up: Callable[[float], bool]) -> int:
        asked.append(give_up(seconds))
        return 1

    monkeypatch.setattr("hpo.delivery.Delivery.drain", drain)
    launcher: Any = SimpleNamespace(stop_signal=stop_signal, stopping_for=stopping_for)

    assert conductor._records is not None
    assert conductor._delivered(conductor._records.outbox, launcher) == 1

    assert asked == [gives_up]
