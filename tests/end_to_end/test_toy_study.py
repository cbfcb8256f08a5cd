"""A user's own study through the real command: budget, states, failures, interruptions, changes."""

import collections
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import optuna
import psutil
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from tests.end_to_end.stores import environment, run, runs, start, trials
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

pytestmark = pytest.mark.slow


def test_a_study_ends_with_one_run_a_trial_and_says_where_to_look(tmp_path):
    study = write_toy(tmp_path)

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    assert "mlflow ui" in done.stdout
    found, tracked = trials(tmp_path, "toy"), runs(tmp_path, "toy")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 6
    assert sorted(tracked) == ["0", "1", "2", "3", "4", "5", "study"]
    for trial in found:
        each, points = tracked[str(trial.number)]
        assert each.info.status == "FINISHED"
        assert points["score"] == sorted(trial.intermediate_values.items())
        assert each.data.metrics["best_score"] == trial.value
        assert each.data.tags["mlflow.parentRunId"] == tracked["study"][0].info.run_id
        assert each.data.tags["optuna.state"] == "COMPLETE"
        assert set(each.data.params) == {"x", "kind"}
        assert trial.user_attrs["x"] == trial.params["x"]
        assert trial.user_attrs.get("mlflow.run_id") in {None, each.info.run_id}  # None: it ended first
    assert tracked["study"][0].info.status == "FINISHED"
    assert tracked["study"][0].data.metrics["best_score"] == max(t.values[0] for t in found)


@pytest.mark.alone
def test_where_the_time_went_is_told_for_every_trial_and_the_study(tmp_path):
    study = write_toy(tmp_path, trials=2, pause=0.05)

    done = run(tmp_path, "--study", str(study))

    assert "time of the workers, " in done.stdout
    tracked = runs(tmp_path, "toy")
    kinds = ("training", "validation", "checkpoint", "service", "waiting")
    times = {run: [tracked[run][0].data.metrics[f"time.{kind}"] for kind in kinds] for run in ("0", "1", "study")}
    assert 0.2 <= times["0"][0] < 5  # four epochs, each of 0.05 seconds and more
    assert times["0"][1:3] == [0, 0]  # its trainer does not say
    assert times["study"] == pytest.approx([a + b for a, b in zip(times["0"], times["1"], strict=True)], abs=0.01)


def test_at_its_budget_it_says_so_and_a_greater_budget_goes_on(tmp_path):
    study = write_toy(tmp_path, trials=3)
    run(tmp_path, "--study", str(study))

    again = run(tmp_path, "--study", str(study))
    more = run(tmp_path, "--study", str(study), "--trials", "5")

    assert again.returncode == more.returncode == 0
    assert "is done: 3 trials" in again.stdout
    assert len(trials(tmp_path, "toy")) == 5
    assert len(witnessed(tmp_path)) == 20


def test_a_failed_trial_says_why_and_the_study_goes_on(tmp_path):
    study = write_toy(tmp_path, trials=4, inject="if Path(workdir).name == '1': raise ValueError('it broke')")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    states = collections.Counter(t.state for t in trials(tmp_path, "toy"))
    assert states == {TrialState.COMPLETE: 4, TrialState.FAIL: 1}
    each, _ = runs(tmp_path, "toy")["1"]
    assert each.info.status == "FAILED"
    assert each.data.tags["hpo.reason"].startswith("ValueError: it broke (toy.py:")
    assert "ValueError: it broke" in (tmp_path / "trials/toy/1/artifacts/error.txt").read_text()


def test_three_failures_in_a_row_stop_the_study_with_the_reason(tmp_path):
    study = write_toy(tmp_path, inject="raise ValueError('always')")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 1
    assert "trials 0, 1, 2 failed in a row; the last one: ValueError: always" in done.stderr
    assert len(trials(tmp_path, "toy")) == 3


def test_a_metric_that_the_trainer_does_not_yield_is_told_after_one_trial_and_can_be_mended(tmp_path):
    study = write_toy(tmp_path)
    study.write_text(study.read_text().replace('metric="score"', 'metric="loss"'))

    wrong = run(tmp_path, "--study", str(study))
    write_toy(tmp_path)
    right = run(tmp_path, "--study", str(study))

    assert wrong.returncode == 2
    assert wrong.stderr.count("the trainer yields no metric 'loss', only score") == 1
    assert len(witnessed(tmp_path)) == 1 + 6 * 4
    assert right.returncode == 0, right.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.FAIL] + [TrialState.COMPLETE] * 6


def test_a_trainer_that_is_none_is_told_before_any_trial(tmp_path):
    study = write_toy(tmp_path)
    study.write_text(study.read_text().replace("Toy(),", "None,"))

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 2
    assert "must return a trainer, an object with `train`, got None" in done.stderr


def test_a_study_in_which_nothing_has_a_value_says_so(tmp_path):
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=2, inject="params = {'x': float('nan')}")))

    assert done.returncode == 0, done.stderr
    assert "no trial has a value" in done.stdout


def test_an_epoch_that_gives_another_value_when_it_is_trained_again_is_told_and_the_first_counts(tmp_path):
    """optuna#852, #2782."""
    inject = (
        "if not Path('tried').exists() and epoch == 2:\n"
        "                record.unlink()\n"
        "                Path('tried').touch()\n"
        "                raise RuntimeError('once')\n"
        "            params = {'x': 0.9} if Path('tried').exists() else {'x': 0.3}"
    )
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, inject=inject, fields="retries=1")))

    assert done.returncode == 0, done.stderr
    for epoch in (0, 1):
        assert f"trial 0: epoch {epoch} trained again gives another score; the first counts" in done.stdout
    (trial,) = trials(tmp_path, "toy")
    assert {epoch: round(1 - value - 1 / (epoch + 2), 6) for epoch, value in trial.intermediate_values.items()} == {
        0: 0.0, 1: 0.0, 2: 0.36, 3: 0.36,
    }  # fmt: skip
    assert runs(tmp_path, "toy")["0"][1]["score"] == sorted(trial.intermediate_values.items())


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_diverged_trial_is_pruned_and_nothing_infinite_is_kept(tmp_path, value):
    """optuna#2809, #3205, #2169; mlflow#25640, #26108, #16555."""
    inject = (
        "if epoch == 2 and Path(workdir).name == '0':\n"
        f"                yield {{'score': float('{value}'), 'other': 1.0}}\n"
        "                return"
    )
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=2, inject=inject)))

    assert done.returncode == 0, done.stderr
    first = trials(tmp_path, "toy")[0]
    each, points = runs(tmp_path, "toy")["0"]
    assert first.state == TrialState.PRUNED
    assert first.user_attrs["hpo.reason"].startswith(f"diverged: score is {value}")
    assert runs(tmp_path, "toy")["study"][0].data.tags["hpo.best_trial"] == "1"
    assert each.info.status == "KILLED"
    assert [step for step, _ in points["score"]] == [0, 1]


def delivered(folder) -> set[str]:
    """Whose runs MLflow has; none where it has no store, or no experiment, yet."""
    try:
        return set(runs(folder, "toy")) if (folder / "mlflow.db").exists() else set()
    except AssertionError:
        return set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_and_the_same_command_goes_on(tmp_path, number, code):
    # What is put before MLflow's store is made is delivered when it is: not in the seconds after a signal.
    goes_on = "[time.sleep(0.05) for _ in range(2400) if not Path('go').exists()]"
    study = write_toy(tmp_path, trials=3, epochs=10, pause=0.2, inject=goes_on)
    process = start(tmp_path, "--study", str(study))
    deadline = time.monotonic() + 100
    while "0" not in delivered(tmp_path):
        assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
        time.sleep(0.2)
    (tmp_path / "go").touch()
    wait_for_epochs(tmp_path, 1)

    process.send_signal(number)

    assert process.wait(timeout=10) == code
    assert "the same command goes on" in (tmp_path / "log.txt").read_text().replace("\n", " ")
    assert [each.info.status for each, _ in runs(tmp_path, "toy").values()] == ["SCHEDULED"] * 2
    assert run(tmp_path, "--study", str(study)).returncode == 0
    assert max(collections.Counter(witnessed(tmp_path)).values()) == 1
    assert [each.info.status for each, _ in runs(tmp_path, "toy").values()] == ["FINISHED"] * 4


def test_a_signal_that_comes_when_all_is_over_changes_nothing(tmp_path):
    study = write_toy(tmp_path, trials=2)
    ends = "import atexit, signal\natexit.register(lambda: [os.kill(os.getpid(), n) for n in (2, 15, 1)])\n"
    study.write_text(study.read_text() + ends)

    done = run(tmp_path, "--study", str(study))

    assert (done.returncode, done.stderr) == (0, "")
    assert "a worker died" not in done.stdout


def test_a_trial_that_ran_out_of_memory_gives_it_back_and_the_worker_goes_on(tmp_path):
    inject = (
        "import psutil, torch\n"
        "            if int(Path(workdir).name) % 2 == 1:\n"
        "                held = torch.ones(50_000_000)\n"
        "                raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "            with open('peaks', 'a') as f:\n"
        "                f.write(f'{os.getpid()} {psutil.Process().memory_info().rss}\\n')"
    )
    study = write_toy(tmp_path, trials=8, epochs=1, inject=inject)

    done = run(tmp_path, "--study", str(study), "--workers", "1")

    assert done.returncode == 0, done.stderr
    failed = [t for t in trials(tmp_path, "toy") if t.number % 2 == 1]
    assert len(failed) >= 7
    assert {t.state for t in failed} == {TrialState.FAIL}
    assert all("OutOfMemoryError: CUDA out of memory (toy.py:" in t.user_attrs["hpo.reason"] for t in failed)
    workers, peaks = zip(*(line.split() for line in (tmp_path / "peaks").read_text().splitlines()), strict=True)
    assert len(workers) == 8
    assert len(set(workers)) == 1, "the worker did not live"
    assert max(map(int, peaks)) - int(peaks[0]) < 50e6


def has_a_worker(command: int) -> bool:
    """Whether a command has started a worker."""
    with suppress(psutil.Error):  # a child may end while it is looked at
        return any("hpo.worker" in child.cmdline() for child in psutil.Process(command).children())
    return False


def test_a_ctrl_c_while_a_worker_comes_up_is_no_traceback(tmp_path):
    command = start(tmp_path, "--study", str(write_toy(tmp_path)))
    while not has_a_worker(command.pid):
        assert command.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)  # it imports what it needs

    os.killpg(command.pid, signal.SIGINT)  # as a terminal does

    assert command.wait(timeout=60) == 130
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_timeout_is_no_error_and_the_same_command_goes_on(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1000, pause=0.1)

    done = run(tmp_path, "--study", str(study), "--timeout", "30")

    assert done.returncode == 0
    assert "timeout reached" in done.stdout
    assert trials(tmp_path, "toy")[0].state == TrialState.RUNNING


def test_four_workers_finish_exactly_the_budget_none_twice(tmp_path):
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=40, epochs=3)), "--workers", "4")

    assert done.returncode == 0, done.stderr
    assert "locked" not in done.stdout + done.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 40
    assert max(collections.Counter(witnessed(tmp_path)).values()) == 1


def test_trials_at_a_time_in_one_worker_finish_exactly_the_budget_none_twice(tmp_path):
    study = write_toy(tmp_path, trials=12, epochs=4, pause=0.5)  # most of a trial, on a busy machine too

    done = run(tmp_path, "--study", str(study), "--workers-per-device", "4")

    assert done.returncode == 0, done.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 12
    assert max(collections.Counter(witnessed(tmp_path)).values()) == 1
    lines = (tmp_path / "witness.txt").read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == 1  # one process
    order = [number for number, _ in witnessed(tmp_path)]
    assert order != sorted(order, key=int)  # and in it trials beside each other
    attrs = [t.user_attrs for t in trials(tmp_path, "toy")]  # a second of the device counts once, for all that share it
    assert sum(a["hpo.seconds"] for a in attrs) < 0.8 * sum(a["hpo.times"]["training"] for a in attrs)


def test_a_worker_that_dies_with_trials_at_a_time_leaves_all_of_them_to_the_next(tmp_path):
    inject = "(Path('died').touch(), os.kill(os.getpid(), 9)) if epoch == 2 and not Path('died').exists() else None"
    study = write_toy(tmp_path, trials=6, epochs=5, pause=0.05, inject=inject)

    done = run(tmp_path, "--study", str(study), "--workers-per-device", "3")

    assert done.returncode == 0, done.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 6
    assert done.stdout.count("a worker died") == 1


def test_the_trainer_says_how_many_trials_at_a_time_are_fastest_unless_they_were_counted_out(tmp_path):
    study = write_toy(tmp_path, trials=4, pause=0.02)
    told = "Toy):\n    def side_by_side(self, candidates):\n        yield from ((1, 1.0), (2, 1.9))\n        raise MemoryError('no room')\n"
    text = (
        study.read_text()
        .replace("STUDY =", f"class Telling({told}\n\nSTUDY =")
        .replace("context: Toy", "context: Telling")
    )
    study.write_text(text)

    measured = run(tmp_path, "--study", str(study))
    counted = run(tmp_path, "--study", str(study), "--workers", "1", "--trials", "6")

    assert "no more trials at a time: side_by_side raises MemoryError: no room" in measured.stdout
    assert "2 trials at a time, which together train 1.9 times as fast as one" in measured.stdout
    assert counted.returncode == 0, counted.stderr
    assert "at a time" not in counted.stdout
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 6


def test_all_that_a_study_leaves_is_its_users_alone(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o755)
    assert run(folder, "--study", str(write_toy(folder, trials=2))).returncode == 0

    ours = [path for path in folder.rglob("*") if path.name not in {"toy.py", "witness.txt", "__pycache__"}]
    ours = [path for path in ours if path.parent.name != "__pycache__"]
    assert len(ours) > 15
    assert [path for path in ours if path.stat().st_mode & 0o077] == []


def test_there_is_a_worker_for_each_gpu_and_it_sees_no_other(tmp_path):
    inject = "Path('seen.txt').open('a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')"
    study = write_toy(tmp_path, trials=8, epochs=4, pause=0.3, inject=inject)
    command = [sys.executable, "-m", "hpo.run", "--study", str(study)]

    where = {**environment(), "CUDA_VISIBLE_DEVICES": "3,5"}
    done = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "seen.txt").read_text().split()) == {"3", "5"}
    assert len(trials(tmp_path, "toy")) == 8


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "os._exit(0)", "os._exit(2)"])
def test_a_worker_that_dies_three_times_without_an_epoch_fails_its_trial_whatever_its_exit_code(tmp_path, death):
    inject = f"{death} if Path(workdir).name == '1' else None"
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=3, inject=inject)))

    assert done.returncode == 0, done.stderr
    found = trials(tmp_path, "toy")
    assert [t.state for t in found].count(TrialState.FAIL) == 1
    assert "died 3 times in a row" in found[1].user_attrs["hpo.reason"]


@pytest.mark.parametrize("value", ["object()", "float('nan')", "1 / 0"])
def test_a_trainer_that_can_not_be_described_is_one_line(tmp_path, value):
    study = write_toy(tmp_path, trials=1)
    describe = f"class Toy:\n    def describe(self):\n        return {{'network': {value}}}\n"
    study.write_text(study.read_text().replace("class Toy:", describe))

    refused = run(tmp_path, "--study", str(study))

    assert refused.returncode == 2
    assert refused.stderr.startswith("describe of the trainer must return names and values as JSON has them: ")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["data_digest", "network"])
def test_a_study_of_other_data_or_another_network_is_refused(tmp_path, name):
    study = write_toy(tmp_path, trials=1)
    text = study.read_text().replace(
        "class Toy:", f"class Toy:\n    def describe(self):\n        return {{'{name}': 'one'}}\n"
    )
    study.write_text(text)
    assert run(tmp_path, "--study", str(study)).returncode == 0

    study.write_text(text.replace("'one'", "'other'"))
    refused = run(tmp_path, "--study", str(study), "--trials", "2")

    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "study 'toy' was made with another configuration; use a new name, or change back:", f"  {name} one, now other",
    ]  # fmt: skip
    assert len(trials(tmp_path, "toy")) == 1


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("0.0, 1.0", "0.1, 1.0", "x was [0.0, 1.0], now [0.1, 1.0]"),
        ('["a", "b"]', '["a", "b", "c"]', "kind was {a, b}, now {a, b, c}"),
        ("seed=7", "seed=8", "seed 7, now 8"),
        ('metric="score"', 'metric="score", direction="minimize"', "direction maximize, now minimize"),
    ],
)
def test_a_changed_study_is_refused_and_told_what_changed(tmp_path, before, after, words):
    study = write_toy(tmp_path, trials=1, epochs=1)
    run(tmp_path, "--study", str(study))
    study.write_text(study.read_text().replace(before, after))

    done = run(tmp_path, "--study", str(study), "--trials", "2")

    assert done.returncode == 2
    assert words in done.stderr
    assert "use a new name" in done.stderr


def test_a_widened_range_goes_on(tmp_path):
    study = write_toy(tmp_path, trials=1, epochs=1)
    run(tmp_path, "--study", str(study))
    study.write_text(study.read_text().replace("0.0, 1.0", "-1.0, 2.0"))

    assert run(tmp_path, "--study", str(study), "--trials", "2").returncode == 0


def test_prints_of_a_study_are_no_events(tmp_path):
    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, inject="print('hello from the study')")))

    assert done.returncode == 0, done.stderr
    assert "hello from the study" in done.stderr


def test_a_moved_folder_goes_on_and_says_how_its_artifacts_are_seen_again(tmp_path):
    (tmp_path / "before").mkdir()
    run(tmp_path / "before", "--study", str(write_toy(tmp_path / "before", trials=1)))
    moved = (tmp_path / "before").rename(tmp_path / "after")

    done = run(moved, "--study", str(write_toy(moved, trials=2)))

    assert done.returncode == 0, done.stderr
    assert "this folder was moved" in done.stderr
    assert f"ln -s {moved / 'mlruns'} {tmp_path / 'before' / 'mlruns'}" in done.stderr
    assert not (tmp_path / "before").exists()
    board = next(moved.glob("mlruns/*/*/artifacts/leaderboard.csv")).read_text()
    assert len(board.splitlines()) == 3


def test_a_study_deleted_from_the_store_leaves_its_folder_to_its_name(tmp_path):
    study = write_toy(tmp_path, trials=1)
    run(tmp_path, "--study", str(study))
    optuna.delete_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'hpo.db'}")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 0, done.stderr
    assert len(witnessed(tmp_path)) == 8
    assert len(list((tmp_path / "trials").glob("toy.before-*"))) == 1


def test_a_store_of_another_optuna_is_told_with_the_way_on(tmp_path):
    import sqlite3

    study = write_toy(tmp_path, trials=1)
    run(tmp_path, "--study", str(study))
    with sqlite3.connect(tmp_path / "hpo.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 2
    assert "optuna storage upgrade" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_study_whose_every_trial_kills_its_worker_is_given_up(tmp_path):
    study = write_toy(tmp_path, inject="os.kill(os.getpid(), 9) if epoch == 1 else None")

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 1
    assert "3 trials in a row failed: their workers died (signal SIGKILL)" in done.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.FAIL] * 3


def test_workers_that_end_with_a_study_that_is_given_up_are_no_reason(tmp_path):
    study = write_toy(tmp_path, trials=20, inject="os.kill(os.getpid(), 9)")

    done = run(tmp_path, "--study", str(study), "--workers", "2")

    assert done.returncode == 1
    assert done.stderr.count("trials in a row failed: their workers died (signal SIGKILL)") == 1
    assert "SIGTERM" not in done.stderr


def test_a_prepare_that_raises_is_one_line(tmp_path):
    study = write_toy(tmp_path)
    study.write_text(study.read_text().replace("prepare=lambda context: Toy()", "prepare=lambda context: 1 / 0"))

    done = run(tmp_path, "--study", str(study))

    assert done.returncode == 2
    assert done.stderr.strip() == "prepare of study 'toy' raises ZeroDivisionError: division by zero"


def test_a_worker_that_somebody_ends_is_replaced(tmp_path):
    inject = "(os.kill(os.getpid(), 15), Path('ended').touch()) if not Path('ended').exists() else None"

    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=2, inject=inject)))

    assert done.returncode == 0, done.stderr
    assert [t.state for t in trials(tmp_path, "toy")] == [TrialState.COMPLETE] * 2


def test_a_new_study_of_an_old_name_gets_runs_of_its_own(tmp_path):
    run(tmp_path, "--study", str(write_toy(tmp_path, trials=1)))
    (tmp_path / "hpo.db").unlink()

    done = run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, fields="retries=0")))

    assert done.returncode == 0, done.stderr
    assert "refuses" not in done.stdout + done.stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 4
    assert len({each.data.tags["hpo.study_id"] for each in found}) == 2


def test_a_folder_that_can_not_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    study = write_toy(tmp_path)

    done = run(tmp_path, "--study", str(study), "--workdir", "file/trials")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_braces_in_the_folders_name_are_no_placeholders(tmp_path):
    folder = tmp_path / "{x}"
    folder.mkdir()

    done = run(folder, "--study", str(write_toy(folder, trials=1)))

    assert done.returncode == 0, done.stderr


def test_a_trial_enqueued_by_optunas_own_means_is_run(tmp_path):
    study = write_toy(tmp_path, trials=1)
    run(tmp_path, "--study", str(study))
    optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'hpo.db'}").enqueue_trial({"x": 0.123})

    done = run(tmp_path, "--study", str(study), "--trials", "3")

    assert done.returncode == 0, done.stderr
    found = trials(tmp_path, "toy")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 3
    assert found[1].params["x"] == 0.123
    assert found[2].params["x"] != 0.123


def test_verbose_tells_how_long_each_stage_of_the_start_takes(tmp_path):
    inject = "assert not self.stop()"  # as trainers do before every batch
    study = write_toy(tmp_path, trials=1, inject=inject)
    study.write_text(study.read_text().replace("lambda context: Toy()", "made").replace("STUDY =", MADE + "STUDY ="))

    told = run(tmp_path, "--study", str(study), "-v")

    stages = [line.split(maxsplit=2) for line in (told.stderr + told.stdout).splitlines() if " s  " in line]
    names = {words: float(seconds) for seconds, _, words in stages}
    assert set(names) == {
        "the study is loaded", "the store is open", "MLflow's store is open", "the worker is there",
        "the trainer is prepared", "the study is open", "what it needs is estimated", "the first step of training",
    }  # fmt: skip
    assert 0 < names["the study is loaded"] < names["the worker is there"] < names["the first step of training"] < 300


MADE = """
def made(context):
    toy = Toy()
    toy.stop = context.stop
    return toy


"""
