"""Pictures are drawn beside training, by whatever command is there, and keep no command from ending."""

import signal
import time

import pytest

from tests.end_to_end.stores import run, runs, start, trials
from tests.hpo.toy import write_toy

pytestmark = [pytest.mark.slow, pytest.mark.alone]

DRAW = """
def draw(workdir):
    time.sleep({seconds})
    (workdir / "artifacts").mkdir(exist_ok=True)
    (workdir / "artifacts" / "curve.png").write_bytes(b"png")


STUDY ="""


def study_with_pictures(folder, *, seconds: float, n: int = 2):
    path = write_toy(folder, trials=n, fields="draw=draw")
    path.write_text(path.read_text().replace("STUDY =", DRAW.format(seconds=seconds)))
    return path


def pictures(folder) -> list[str]:
    return sorted(p.parts[-3] for p in folder.glob("trials/toy/*/artifacts/curve.png"))


def test_each_trial_that_has_ended_has_its_picture_here_and_in_mlflow(tmp_path):
    study = study_with_pictures(tmp_path, seconds=0)

    assert run(tmp_path, "--study", str(study)).returncode == 0

    assert pictures(tmp_path) == ["0", "1"]
    uploaded = {
        number: [file.name for file in tmp_path.glob(f"mlruns/*/{each.info.run_id}/artifacts/*")]
        for number, (each, _) in runs(tmp_path, "toy").items()
    }
    assert uploaded["0"] == uploaded["1"] == ["curve.png"]
    assert not list(tmp_path.glob("trials/toy/*/.undrawn"))


def test_a_signal_leaves_the_pictures_to_the_next_command(tmp_path):
    study = study_with_pictures(tmp_path, seconds=60)
    process = start(tmp_path, "--study", str(study))
    deadline = time.monotonic() + 120
    while "[2/2]" not in (tmp_path / "log.txt").read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)  # its trials are over: what it waits for is its pictures

    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    code = process.wait(timeout=60)
    seconds = time.monotonic() - began
    study.write_text(study.read_text().replace("time.sleep(60)", "pass"))
    again = run(tmp_path, "--study", str(study))

    assert code == 130
    assert seconds < 10
    assert "timeout reached" not in (tmp_path / "log.txt").read_text()
    assert again.returncode == 0
    assert pictures(tmp_path) == ["0", "1"]
    assert [len(t.intermediate_values) for t in trials(tmp_path, "toy")] == [4, 4]


def test_a_timeout_does_not_wait_for_pictures(tmp_path):
    study = study_with_pictures(tmp_path, seconds=60, n=1000)

    began = time.monotonic()
    done = run(tmp_path, "--study", str(study), "--timeout", "15")

    assert done.returncode == 0
    assert "timeout reached" in done.stdout
    assert time.monotonic() - began < 60


def test_a_summary_or_a_picture_that_raises_is_a_line(tmp_path):
    fields = "draw=lambda workdir: 1 / 0, summarize=lambda trials: trials[99]"

    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, fields=fields)))

    assert done.returncode == 0
    assert "trial 0: its pictures can't be drawn: ZeroDivisionError: division by zero" in done.stderr
    assert "summarize of study 'toy' raises IndexError: list index out of range" in done.stdout
    assert "study toy is done: 1 trial" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
