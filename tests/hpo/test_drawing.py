"""A trial's pictures are drawn once it has ended, by whatever command is there to draw them."""

import threading

import pytest
from optuna.trial import TrialState, create_trial

from hpo.drawing import Drawing, mark_undrawn
from hpo.outbox import open_outbox


@pytest.fixture
def outbox(tmp_path):
    return open_outbox(tmp_path / "outbox", "abc")


def trial(folder, number: int):
    path = folder / str(number)
    (path / "artifacts").mkdir(parents=True)
    (path / "artifacts" / "history.csv").write_text("epoch\n")
    mark_undrawn(path)
    return path


def never(_seconds: float) -> bool:
    return False


def draw(workdir):
    (workdir / "artifacts" / "curve.png").write_bytes(b"png")


def handed_over(outbox) -> list[tuple[str, str]]:
    return [(item.run, item.payload["file"].rsplit("/", 1)[-1]) for item in outbox.waiting()]


def test_what_is_drawn_is_handed_over_and_the_mark_goes(tmp_path, outbox):
    path = trial(tmp_path, 3)
    drawing = Drawing(draw, outbox, tmp_path)

    drawing.add(3)
    drawing.add(3)
    drawing.close(never)

    assert handed_over(outbox) == [("3", "curve.png")]  # once, and not what the trial's end has handed over itself
    assert not (path / ".undrawn").exists()


def test_what_a_kill_has_left_is_drawn_of_trials_that_have_ended(tmp_path, outbox):
    for number in (0, 1, 2):
        trial(tmp_path, number)
    (tmp_path / "2" / ".undrawn").unlink()
    states = (TrialState.PRUNED, TrialState.RUNNING, TrialState.PRUNED)
    trials = [create_trial(state=state) for state in states]
    for number, each in enumerate(trials):
        each.number = number
    drawing = Drawing(draw, outbox, tmp_path)

    drawing.add_left(trials)
    drawing.close(never)

    assert handed_over(outbox) == [("0", "curve.png")]
    assert (tmp_path / "1" / ".undrawn").exists()


def test_a_picture_that_can_not_be_drawn_is_a_warning(tmp_path, outbox, caplog):
    trial(tmp_path, 0)

    def fails(_):
        raise ValueError("no axes")

    drawing = Drawing(fails, outbox, tmp_path)
    drawing.add(0)
    drawing.close(never)

    assert "trial 0: its pictures can't be drawn: ValueError: no axes" in caplog.text
    assert handed_over(outbox) == []


def test_without_room_the_mark_stays_for_the_next_command(tmp_path, outbox, caplog):
    path = trial(tmp_path, 0)

    def full(_):
        raise OSError(28, "No space left on device")

    drawing = Drawing(full, outbox, tmp_path)
    drawing.add(0)
    drawing.close(never)

    assert "no room" in caplog.text
    assert (path / ".undrawn").exists()


def test_one_that_takes_long_is_left_behind(tmp_path, outbox):
    for number in (0, 1):
        trial(tmp_path, number)
    go_on = threading.Event()
    drawing = Drawing(lambda _: go_on.wait(30), outbox, tmp_path)
    drawing.add(0)
    drawing.add(1)

    drawing.close(lambda seconds: seconds > 0.05)

    assert (tmp_path / "1" / ".undrawn").exists()  # it never began
    go_on.set()


def test_a_study_without_pictures_draws_none(tmp_path, outbox):
    path = trial(tmp_path, 0)
    drawing = Drawing(None, outbox, tmp_path)

    drawing.add(0)
    drawing.close(never)

    assert handed_over(outbox) == []
    assert path.exists()
