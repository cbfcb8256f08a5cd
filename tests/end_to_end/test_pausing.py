"""Trials that pause and go on, through the real command, under the schedulers that decide so."""

import os
import signal
import time

import pytest

from tests.end_to_end.stores import run, runs, start, trials
from tests.hpo.toy import witnessed, write_toy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheduler", ["asha", "freeze_thaw"])
def test_paused_trials_go_on_and_are_pruned_with_what_they_have_when_the_study_ends(tmp_path, scheduler):
    fields = f"scheduler={scheduler!r}, max_epochs=8, n_epochs=40"
    study = write_toy(tmp_path, trials=30, epochs=8, fields=fields)

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    found, tracked = trials(tmp_path, "toy"), runs(tmp_path, "toy")
    assert len(witnessed(tmp_path)) == len(set(witnessed(tmp_path))) == 40
    assert any(len(t.user_attrs["hpo.decisions"]) > 1 for t in found)
    for trial in found:
        each, points = tracked[str(trial.number)]
        assert points["score"] == sorted(trial.intermediate_values.items())
        assert each.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state.name]
        assert trial.values == [max(trial.intermediate_values.values())]
    best = max(t.values[0] for t in found)
    assert tracked["study"][0].data.metrics["best_score"] == best


def test_a_study_that_is_killed_decides_as_one_left_alone(tmp_path):
    fields = "scheduler='freeze_thaw', max_epochs=8, n_epochs=60"
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        write_toy(tmp_path / name, trials=40, epochs=8, pause=0.05, fields=fields)
    assert run(tmp_path / "whole", "--study", "toy.py").returncode == 0
    for n_epochs in (7, 23, 41):
        process = start(tmp_path / "cut", "--study", "toy.py")
        witness = tmp_path / "cut" / "witness.txt"
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not (witness.exists() and len(witnessed(tmp_path / "cut")) > n_epochs):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run(tmp_path / "cut", "--study", "toy.py").returncode == 0

    def decided(folder):
        return [(t.params, t.intermediate_values, t.user_attrs["hpo.decisions"]) for t in trials(folder, "toy")]

    assert decided(tmp_path / "cut") == decided(tmp_path / "whole")


def test_four_workers_keep_a_budget_of_epochs_exactly(tmp_path):
    fields = "scheduler='freeze_thaw', max_epochs=8, n_epochs=60"
    study = write_toy(tmp_path, trials=40, epochs=8, pause=0.02, fields=fields)

    done = run(tmp_path, "--study", str(study), "--workers", "4")

    assert done.returncode == 0, done.stderr
    assert sum(len(t.intermediate_values) for t in trials(tmp_path, "toy")) == 60
    assert len(witnessed(tmp_path)) == len(set(witnessed(tmp_path))) == 60
    assert all(t.state.is_finished() for t in trials(tmp_path, "toy"))


def test_a_budget_of_device_seconds_ends_the_study_wherever_its_trials_are(tmp_path):
    study = write_toy(tmp_path, trials=40, epochs=50, pause=0.1, fields="timeout_seconds=3.0")

    done = run(tmp_path, "--study", str(study))
    n_trials = len(trials(tmp_path, "toy"))
    again = run(tmp_path, "--study", str(study))

    assert done.returncode == again.returncode == 0, done.stderr
    found = trials(tmp_path, "toy")
    assert len(found) == n_trials
    assert all(t.state.is_finished() for t in found)
    assert sum(t.user_attrs["hpo.seconds"] for t in found) > 2.0


def test_an_optuna_study_keeps_a_budget_of_epochs_exactly_too(tmp_path):
    study = write_toy(tmp_path, trials=40, epochs=8, fields="n_epochs=30, max_epochs=8")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    assert [len(t.intermediate_values) for t in trials(tmp_path, "toy")] == [8, 8, 8, 6]


def test_what_paused_trials_keep_stays_under_its_cap_but_for_the_best_ones_weights(tmp_path):
    keep = (
        "[((Path(workdir) / f).mkdir(exist_ok=True), (Path(workdir) / f / 'state').write_bytes(bytes(1000))) "
        "for f in ('checkpoints', 'weights')]; "
        "others = [f.stat().st_size for f in Path(workdir).parent.glob('*/*/state') if f.parents[1] != Path(workdir)]; "
        "print(sum(others), file=open('kept', 'a'))"
    )
    fields = "scheduler='freeze_thaw', max_epochs=8, n_epochs=30, checkpoint_bytes=3500, keep_weights=1"
    study = write_toy(tmp_path, trials=40, epochs=8, inject=keep, fields=fields)

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    assert any("hpo.dropped_epochs" in t.user_attrs for t in trials(tmp_path, "toy"))
    assert 3000 <= max(map(int, (tmp_path / "kept").read_text().split())) <= 3500 + 1000
    assert [f.parent.name for f in (tmp_path / "trials" / "toy").glob("*/weights")] == [str(best(tmp_path))]


def best(folder):
    return max((t.value, t.number) for t in trials(folder, "toy") if t.value is not None)[1]
