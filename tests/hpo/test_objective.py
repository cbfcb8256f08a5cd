"""How a trial is run: what its trainer may do, and what becomes of it where a store, or its lease, is lost amid it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import NopPruner
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from hpo.errors import LeaseLostError
from hpo.leases import Lease, Leases, Stopping, become_owner
from hpo.objective import Workplace, _tags_of, run_trial
from hpo.outbox import open_outbox
from hpo.records import Records
from hpo.resume import open_study
from hpo.rows import add_trial
from hpo.spec import StudySpec
from hpo.storage import open_store
from hpo.times import Stopwatch


@dataclass
class Toy:
    """Yields three epochs; asks whether the trial is its own as it is left, as one does that would keep something."""

    stopping: Stopping
    meanwhile: Callable[[int], object] = lambda _: None
    kept: list[bool] = field(default_factory=list)
    tags: Callable[[], dict[str, Any]] = dict

    def train(self, params: Any, *, seed: int, workdir: Path) -> Iterator[dict[str, float]]:
        try:
            for epoch in range(3):
                self.meanwhile(epoch)
                if not self.stopping.owned():
                    return
                yield {"score": float(epoch)}
        finally:
            self.kept.append(self.stopping.owned())

    def evaluate(self, workdir: Path, split: str) -> dict[str, float]:
        return {}


@dataclass
class Place:
    workplace: Workplace
    lease: Lease
    toy: Toy

    def run(self) -> TrialState | None:
        return run_trial(self.workplace, self.lease, Stopwatch())

    def take_it_over(self) -> None:
        leases = self.workplace.records.leases
        leases.claim(self.lease.trial_id, become_owner(leases.owners))

    @property
    def state(self) -> TrialState:
        return self.workplace.records.trial(self.lease.trial_id).state


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpo.objective.SURE_SECONDS", 0.0)  # each look is at the store
    stopping = Stopping()
    toy = Toy(stopping)
    spec = StudySpec(name="toy", suggest=lambda _: {}, prepare=lambda _: toy, metric="score", n_trials=1)
    store = open_store()
    leases = Leases(store.engine, tmp_path / "owners")
    with store.lock():
        opened = open_study(spec, store, leases, toy, tmp_path / "trials" / "toy", tmp_path / "outbox", None)
    outbox = open_outbox(tmp_path / "outbox", opened.identity.study_id)
    records = Records(spec, store, opened.study, leases, outbox, opened.identity, tmp_path / "trials" / "toy")
    template = create_trial(state=TrialState.RUNNING, user_attrs={"hpo.params": {}})
    trial_id = add_trial(store.engine, opened.study._study_id, template)
    lease = leases.claim(trial_id, become_owner(leases.owners))
    return Place(Workplace(records, NopPruner(), toy, stopping, lambda _: None), lease, toy)


def test_a_trial_that_is_left_alone_is_complete_and_its_own_to_the_end(place):
    assert place.run() == TrialState.COMPLETE
    assert place.toy.kept == [True]


def test_a_trainer_whose_trial_is_taken_keeps_nothing_and_another_s_trial_lends_it_no_ownership(place):
    place.toy.meanwhile = lambda epoch: place.take_it_over() if epoch == 1 else None

    with pytest.raises(LeaseLostError):
        place.run()

    assert place.toy.kept == [False]
    assert place.state == TrialState.RUNNING


def test_a_trial_that_is_lost_amid_a_report_is_closed_before_anything_else(place, monkeypatch):
    def lost(*_: object) -> None:
        raise LeaseLostError("lost")

    monkeypatch.setattr(Records, "report", lost)

    with pytest.raises(LeaseLostError):
        place.run()

    assert place.toy.kept == [False]


@pytest.mark.parametrize("raises", ["in time", "late"])
def test_an_error_of_who_has_lost_its_trial_is_kept_nowhere_and_it_is_not_tried_again(place, raises):
    def fail(epoch: int) -> None:
        if epoch == 1:
            if raises == "late":
                place.take_it_over()
            raise ValueError("no such thing")

    place.toy.meanwhile = fail
    error = place.workplace.records.folder / "0" / "artifacts" / "error.txt"

    if raises == "late":
        with pytest.raises(LeaseLostError):
            place.run()
        assert not error.exists()
        assert place.state == TrialState.RUNNING
    else:
        assert place.run() == TrialState.FAIL
        assert "no such thing" in error.read_text()


@pytest.mark.parametrize("asked", [False, True])
def test_a_store_that_can_not_be_asked_fails_no_trial(place, monkeypatch, asked):
    def away(*_: object) -> bool:
        raise OperationalError("SELECT", {}, Exception("the server is gone"))

    def go_away(epoch: int) -> None:
        if epoch == 1:
            place.workplace.stopping.asked = asked
            place.workplace.stopping.sure_at = -1e9
            monkeypatch.setattr(Leases, "holds", away)

    place.toy.meanwhile = go_away

    with pytest.raises(OperationalError, match="the server is gone"):
        place.run()

    assert place.toy.kept == [False]
    monkeypatch.undo()
    assert place.state == TrialState.RUNNING


def test_who_is_asked_to_stop_keeps_what_nobody_can_have_yet_though_the_store_is_away(place, monkeypatch):
    def away(*_: object) -> bool:
        raise OperationalError("SELECT", {}, Exception("the server is gone"))

    def go_away(epoch: int) -> None:
        if epoch == 1:
            place.workplace.stopping.asked = True
            monkeypatch.setattr(Leases, "holds", away)

    place.toy.meanwhile = go_away

    with pytest.raises(OperationalError):  # it can't be left in order
        place.run()

    assert place.toy.kept == [True]


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_trainer_that_would_end_the_process_fails_its_trial(place, error):
    def fail(_: int) -> None:
        raise error

    place.toy.meanwhile = fail

    assert place.run() == TrialState.FAIL


def test_a_trainer_s_tags_are_noted_without_secrets_and_none_of_the_service_s_own(place, caplog):
    outbox = place.workplace.records.outbox
    place.toy.tags = lambda: {"batch_parts": 2, "url": "https://u:hunter2@h"}
    assert place.run() == TrialState.COMPLETE
    assert {"batch_parts": "2", "url": "https://u:***@h"} in [item.payload for item in outbox.waiting()]

    place.toy.tags = lambda: {"mlflow.runName": "another"}
    assert _tags_of(place.toy) == {}
    assert "mlflow.runName is not the trainer's to set; they are left out" in caplog.text


def test_what_the_renewal_has_seen_lost_no_look_of_before_finds_again(place):
    stopping = place.workplace.stopping

    def look() -> bool:
        stopping.lost = True  # the renewal's thread, while the look is under way
        return True

    stopping.holds = look

    assert not stopping.owned()
    assert stopping.lost
