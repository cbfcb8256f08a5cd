"""Keeping house without a study having run: the flags, the list, what may be enqueued, what is let go of."""

import io
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo import confirmation
from hpo.confirmation import Retrained
from hpo.leases import Leases, Owner, become_owner
from hpo.notebook import state_of
from hpo.options import bytes_in_words, freed_with, size_of
from hpo.storage import open_store
from hpo.studies import main
from tests.hpo.test_notebook import make_study
from tests.hpo.toy import write_toy

SPACE = {
    "x": ['{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}'],
    "kind": ['{"name": "CategoricalDistribution", "attributes": {"choices": ["a", "b"]}}'],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def enqueue(folder: Path, text: str) -> int:
    (folder / "params.json").write_text(text)
    return main(["--enqueue", str(folder / "toy.py"), "params.json"])


def test_help_loads_nothing_heavy():
    code = "import sys, hpo.studies as s, hpo.ui as u; s.parser().format_help(); u.parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"torch", "optuna", "mlflow", "sqlalchemy", "pandas", "numpy"} & set(loaded)


def test_the_list_has_state_counts_best_and_what_was_spent(folder, capsys):
    make_study(folder)

    assert main(["--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert main([]) == 0
    table = capsys.readouterr().out

    assert entry["name"] == "toy"
    assert entry["state"] == "interrupted"
    assert entry["trials"] == {"COMPLETE": 2, "RUNNING": 1}
    assert (entry["best_trial"], entry["best_value"], entry["metric"]) == (1, 0.4, "score")
    assert (entry["epochs"], entry["device_seconds"]) == (6, 4.5)
    assert entry["bytes"] == size_of(folder / "trials/toy")
    assert "2 complete, 1 running" in table
    assert "score 0.4000" in table


@pytest.mark.usefixtures("folder")
def test_a_store_of_optunas_own_making_is_listed_too(capsys):
    store = open_store("sqlite:///hpo.db")
    optuna.create_study(study_name="plain one", storage=store.storage)
    optuna.create_study(study_name="two aims", storage=store.storage, directions=["minimize", "maximize"])

    assert main(["--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ["plain one", "two aims"]


@pytest.mark.parametrize(
    ("over", "n_trials", "expected"),
    [
        (None, None, "interrupted"),
        ({"reason": "done", "budget": [2, None, None]}, None, "done"),
        ({"reason": "done", "budget": [2, None, None]}, 2, "done"),
        ({"reason": "done", "budget": [2, None, None]}, 5, "interrupted"),
        ({"reason": "done, but for what is kept to confirm it", "budget": [17, None, None]}, 20, "done"),
        ({"reason": "done", "budget": [1, None, None]}, None, "interrupted"),
        ({"reason": "done", "budget": [None, 40, None]}, None, "done"),
    ],
)
def test_a_study_is_done_when_it_was_at_its_end_under_the_budget_that_it_has(over, n_trials, expected):
    study = optuna.create_study()
    study.add_trials([optuna.trial.create_trial(value=1.0)] * 2)
    if over is not None:
        study.set_user_attr("hpo.over", over)
    if n_trials is not None:
        study.set_user_attr("hpo.n_trials", n_trials)

    assert state_of(study, study.trials, at_work=False) == expected
    assert state_of(study, study.trials, at_work=True) == "running"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--storage", "sqlite:///nope.db"], "nope.db: there is no such store"),
        (["--storage", "mysql://u:secret@h/d"], "need sqlite:///FILE"),
        (["--delete", "toi", "--yes"], "no study 'toi' in sqlite:///{folder}/hpo.db; did you mean toy?"),
        (["--delete", "toy"], "give --yes"),
        (["--prune-files", "toy"], "studies/ does not declare it: give its .py file's path"),
        (["--prune-files", "nope.py"], "nope.py: no such study file"),
        (["--enqueue", "toy", "params.json"], "studies/ does not declare it"),
        (["--enqueue", "toy.py", "nope.json"], "nope.json: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_2(flags, words, folder, capsys, monkeypatch):
    make_study(folder)
    write_toy(folder)
    monkeypatch.setattr("sys.stdin", (folder / "toy.py").open())

    assert main(flags) == 2

    said = capsys.readouterr().err
    assert words.format(folder=folder) in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{x}", "params.json:1: not JSON"),
        ('{"x": NaN}', "NaN is no value"),
        ("[]", "need a mapping of params, or a list of them"),
        ("3", "need a mapping of params, or a list of them"),
        ('[{"x": 0.5}, 3]', "need a mapping of params, or a list of them"),
        ('{"y": 1}', "params.json[0]: y is not suggested; there are x, kind"),
        ('[{"x": 0.5}, {"x": 2}]', "params.json[1]: x = 2 is outside FloatDistribution"),
        ('{"x": "0.5"}', 'params.json[0]: x must be a number, got "0.5"'),
        ('{"x": 1' + 400 * "0" + "}", "params.json[0]: int too large"),
        ('{"kind": "c"}', 'params.json[0]: kind must be one of "a", "b", got "c"'),
    ],
)
def test_what_is_not_in_the_space_is_not_enqueued(text, words, folder, capsys):
    make_study(folder)
    write_toy(folder)

    assert enqueue(folder, text) == 2

    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert len(optuna.load_study(study_name="toy", storage="sqlite:///hpo.db").trials) == 3


def test_a_study_of_another_space_is_refused(folder, capsys):
    make_study(folder).set_user_attr("hpo.facts", {"space": {**SPACE, "x": SPACE["kind"]}})
    write_toy(folder)

    assert enqueue(folder, '{"x": 0.5}') == 2
    assert "was made with another search space: x was {a, b}, now [0.0, 1.0]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("n_trials=9", "to be run with the next python -m hpo.run --study"),
        ("n_trials=3", "its budget of 3 trials has no room for all that wait: "),
        ("n_trials=None, n_epochs=6, max_epochs=4", "its 6 epochs are used up: raise n_epochs"),
        ("n_trials=None, timeout_seconds=4.5", "its 4.5 seconds are used up: raise timeout_seconds"),
    ],
)
def test_what_is_enqueued_waits_and_it_is_said_what_lets_it_run(fields, words, folder, capsys):
    make_study(folder).set_user_attr("hpo.facts", {"space": SPACE})
    study = write_toy(folder)
    study.write_text(study.read_text().replace("n_trials=6", fields))

    assert enqueue(folder, '[{"x": 0.5}, {"x": 1, "kind": "a"}]') == 0

    said = capsys.readouterr().out
    assert "enqueued as trials 3, 4 of study toy" in said
    assert words in said
    assert fields != "n_trials=3" or "--trials 5" in said
    waiting = optuna.load_study(study_name="toy", storage="sqlite:///hpo.db").trials[3:]
    assert [t.state for t in waiting] == [TrialState.WAITING] * 2
    assert [t.system_attrs["fixed_params"] for t in waiting] == [{"x": 0.5}, {"x": 1, "kind": "a"}]


def test_files_that_are_no_longer_needed_go_and_their_bytes_are_told(folder, capsys):
    make_study(folder)
    write_toy(folder, fields="keep_weights=1")
    for number in range(3):
        for part in ("checkpoints", "weights", "artifacts"):
            (folder / f"trials/toy/{number}/{part}").mkdir(parents=True, exist_ok=True)
            (folder / f"trials/toy/{number}/{part}/file").write_bytes(b"0" * 1000)
    kept = folder / "trials/toy/1/weights/best.safetensors"
    (folder / "trials/toy/1/checkpoints/best").hardlink_to(kept)  # frees nothing: the weights stay
    before = size_of(folder / "trials")

    assert main(["--prune-files", "toy.py"]) == 0

    said = capsys.readouterr().out
    assert said.startswith("3000 bytes (3.0 kB) freed in trials/toy, the weights of the best 1 stay")
    assert size_of(folder / "trials") == before - 3000
    left = sorted(str(p.relative_to(folder / "trials/toy")) for p in (folder / "trials/toy").rglob("*") if p.is_file())
    assert left == [
        ".study_id", "0/artifacts/file", "1/artifacts/file", "1/weights/best.safetensors", "1/weights/file",
        "2/artifacts/file", "2/checkpoints/file", "2/weights/file",
    ]  # fmt: skip


def test_of_a_confirmation_the_winners_weights_stay(folder, capsys):
    study = make_study(folder)
    write_toy(folder, fields="keep_weights=1")
    beside = optuna.create_study(study_name="toy-confirm", storage="sqlite:///hpo.db")
    beside.add_trials([optuna.trial.create_trial(value=0.5)] * 4)
    beside.set_user_attr("hpo.study_id", "of the confirmation")
    for number in range(4):
        (folder / f"trials/toy-confirm/{number}/weights").mkdir(parents=True)
    (folder / "trials/toy-confirm/.study_id").write_text("of the confirmation")

    assert main(["--prune-files", "toy.py"]) == 0
    assert len(list(folder.glob("trials/toy-confirm/*/weights"))) == 4  # which is best is not known yet

    values = [
        Retrained(trial=t, params={}, is_baseline=False, searched=None, trials=(t, t + 2), values=(v, v))
        for t, v in ((0, 0.3), (1, 0.6))
    ]
    said = confirmation.confirmed(values, study="toy", metric="score", direction="maximize")
    study_id = study.user_attrs["hpo.study_id"]
    confirmation.write(confirmation.dataclasses.replace(said, study_id=study_id), folder / "trials/toy-confirm")
    more = beside.ask()
    assert main(["--prune-files", "toy.py"]) == 0
    assert len(list(folder.glob("trials/toy-confirm/*/weights"))) == 4  # it is confirmed on more seeds by now
    beside.tell(more, state=optuna.trial.TrialState.FAIL)
    assert main(["--prune-files", "toy.py"]) == 0
    assert sorted(p.parent.name for p in folder.glob("trials/toy-confirm/*/weights")) == ["1", "3"]
    assert "freed in trials/toy-confirm, the weights of the best 2 stay" in capsys.readouterr().out


def test_checkpoints_that_others_may_go_on_from_stay(folder, capsys):
    make_study(folder)
    write_toy(folder, fields="reuse_epochs=True")
    (folder / "trials/toy/0/checkpoints").mkdir(parents=True)

    assert main(["--prune-files", "toy.py"]) == 0
    assert (folder / "trials/toy/0/checkpoints").is_dir()
    assert capsys.readouterr().out.startswith("0 bytes")


def test_a_study_at_work_is_not_deleted(folder, capsys):
    study = make_study(folder)
    leases = Leases(open_store("sqlite:///hpo.db").engine, folder / "trials/.owners")
    leases.create_table()
    owner = become_owner(leases.owners)
    leases.claim(study.trials[2]._trial_id, owner)

    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "running"
    assert main(["--delete", "toy", "--yes"]) == 2
    assert "study 'toy' is at work: a worker is at trial 2; end it first" in capsys.readouterr().err
    assert len(list((folder / "trials/toy/1/weights").iterdir())) == 1

    owner.lock.release()
    assert main(["--delete", "toy", "--yes"]) == 0


def test_a_study_whose_worker_was_on_a_lost_machine_is_deleted_once_that_is_clear(folder, capsys, monkeypatch):
    study = make_study(folder)
    leases = Leases(open_store("sqlite:///hpo.db").engine, folder / "trials/.owners")
    leases.create_table()
    leases.claim(study.trials[2]._trial_id, Owner("far", "lost", "boot", folder / "not-seen.owner", None))
    monkeypatch.setattr("hpo.leases.GRACE_SECONDS", 1.0)

    assert main(["--delete", "toy", "--yes"]) == 0

    assert "trial 2: its worker can't be seen from here" in capsys.readouterr().err


def test_a_study_is_not_deleted_whose_other_machine_moves_on_while_it_is_looked_at(folder, capsys, monkeypatch):
    study = make_study(folder)
    leases = Leases(open_store("sqlite:///hpo.db").engine, folder / "trials/.owners")
    leases.create_table()
    far = leases.claim(study.trials[2]._trial_id, Owner("far", "lost", "boot", folder / "not-seen.owner", None))
    monkeypatch.setattr(
        "hpo.studies.time.sleep", lambda _: leases.release(far)
    )  # it paused its trial, and takes another

    assert main(["--delete", "toy", "--yes"]) == 2

    assert "is at work: a worker is at trial 2" in capsys.readouterr().err
    assert (folder / "trials/toy/1/weights/best.safetensors").exists()


def test_a_study_is_not_deleted_that_is_taken_up_while_the_question_stands(folder, capsys, monkeypatch):
    study = make_study(folder)
    leases = Leases(open_store("sqlite:///hpo.db").engine, folder / "trials/.owners")
    leases.create_table()

    owner = become_owner(leases.owners)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def readline(self, _size=-1):
            leases.claim(study.trials[2]._trial_id, owner)
            return "y"

    monkeypatch.setattr("sys.stdin", Terminal())

    assert main(["--delete", "toy"]) == 2

    assert "is at work: a worker is at trial 2" in capsys.readouterr().err
    assert (folder / "trials/toy/1/weights/best.safetensors").exists()
    assert len(optuna.load_study(study_name="toy", storage="sqlite:///hpo.db").trials) == 3


def test_a_deleted_study_takes_its_leases_with_it_and_leaves_other_studies(folder, capsys):
    study = make_study(folder)
    engine = open_store("sqlite:///hpo.db").engine
    leases = Leases(engine, folder / "trials/.owners")
    leases.create_table()
    owner = become_owner(leases.owners)
    leases.note_death(leases.claim(study.trials[2]._trial_id, owner).trial_id, 2)
    owner.lock.release()
    beside = optuna.create_study(study_name="toy-confirm", storage="sqlite:///hpo.db")
    beside.set_user_attr("hpo.confirms", study.user_attrs["hpo.study_id"])

    assert main(["--delete", "toy", "--yes"]) == 0

    said = capsys.readouterr().out
    assert "study toy is deleted: 3 trials" in said
    assert "study toy-confirm, stays" in said
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM hpo_leases").scalar() == 0
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM trials").scalar() == 0
    assert not (folder / "mlflow.db").exists()  # it had no runs there
    assert [p.name for p in (folder / "trials").iterdir()] == [".owners"]


def test_the_folder_of_another_study_of_the_same_name_is_left(folder):
    make_study(folder)
    (folder / "trials/toy/.study_id").write_text("0" * 32)

    assert main(["--delete", "toy", "--yes"]) == 0
    assert (folder / "trials/toy/1/weights/best.safetensors").is_file()


def test_sizes_count_a_file_of_two_names_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"0" * 10)
    (tmp_path / "b").hardlink_to(tmp_path / "a/file")

    assert size_of(tmp_path) == 10
    assert freed_with([tmp_path / "a"]) == 0
    assert freed_with([tmp_path]) == 10


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_340_000_000, "2.3 GB"), (5e12, "5.0 TB"), (5e15, "5000.0 TB")],
)
def test_sizes_in_words(n, words):
    assert bytes_in_words(n) == words
