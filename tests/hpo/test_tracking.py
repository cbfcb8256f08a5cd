"""What is in the outbox reaches MLflow once, whatever happens to the server, the run or the experiment."""

import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from hpo.errors import UserError
from hpo.outbox import PARENT, open_outbox
from hpo.storage import open_store
from hpo.tracking import Tracker
from hpo.tracking_store import check_uri, open_uri
from tests.end_to_end.stores import filled

OPEN = {
    "name": "#0",
    "tags": {"hpo.study_id": "id", "optuna.trial_number": "0"},
    "params": {"x": 1},
    "note": "n",
    "dataset": None,
}
STUDY = {**OPEN, "name": "study s", "tags": {"hpo.study_id": "id", "hpo.kind": "study"}}


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_uri(f"sqlite:///{path}")
    return path


@pytest.fixture
def client(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def outbox(tmp_path):
    found = open_outbox(tmp_path / "outbox", "s")
    found.put(PARENT, "open", STUDY, once="open")
    found.put("0", "open", OPEN, once="open")
    for epoch in range(3):
        found.put("0", "metrics", {"step": epoch, "metrics": {"a": epoch / 10, "b": 1.0}}, once=f"epoch:{epoch}")
    return found


def tracker(outbox, tmp_path) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", outbox, "s", "id")


def delivered(outbox, tmp_path) -> Tracker:
    found = tracker(outbox, tmp_path)
    for _ in range(3):
        found.deliver()
    assert found.problem is None
    assert outbox.n_waiting() == 0
    return found


def steps(client, outbox) -> list[int]:
    return sorted(m.step for m in client.get_metric_history(outbox.run_id("0"), "a"))


def test_every_row_arrives_once_however_often_it_is_sent(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    with outbox.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE items SET state = 0")  # as if killed after sending, before it was noted
    delivered(outbox, tmp_path)

    assert steps(client, outbox) == [0, 1, 2]
    assert len(client.search_runs([client.get_experiment_by_name("s").experiment_id])) == 2


def test_points_of_trials_that_train_at_a_time_go_together_all_the_same(client, outbox, tmp_path):
    outbox.put("1", "open", {**OPEN, "tags": {"hpo.study_id": "id", "optuna.trial_number": "1"}}, once="open")
    for epoch in range(3, 100):
        for run in ("0", "1"):
            outbox.put(run, "metrics", {"step": epoch, "metrics": {"a": 0.5}}, once=f"epoch:{epoch}")

    batches = list(tracker(outbox, tmp_path)._batches(outbox.waiting()))

    assert [(batch[0].run, batch[0].kind, len(batch)) for batch in batches] == [
        (PARENT, "open", 1), ("0", "open", 1), ("0", "metrics", 100), ("1", "open", 1), ("1", "metrics", 97),
    ]  # fmt: skip
    delivered(outbox, tmp_path)
    assert steps(client, outbox) == [*range(100)]


def test_a_kill_between_making_a_run_and_noting_it_makes_no_second_run(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    run_id = outbox.run_id("0")
    outbox.set_run_id("0", None, "x")

    delivered(outbox, tmp_path)

    assert outbox.run_id("0") == run_id
    assert steps(client, outbox) == [0, 1, 2]


def of_a_machine(tmp_path, number):
    found = open_outbox(tmp_path / f"outbox of machine {number}", "s")
    found.put(PARENT, "open", STUDY, once="open")
    return found


def test_machines_that_begin_a_study_at_once_share_its_run(client, tmp_path):
    making = open_store(f"sqlite:///{tmp_path / 'hpo.db'}").making
    outboxes = [of_a_machine(tmp_path, number) for number in range(4)]
    trackers = [Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", each, "s", "id", making) for each in outboxes]
    at_once = threading.Barrier(len(trackers))

    def deliver(each):
        each._experiment()
        at_once.wait()
        each.deliver()

    with ThreadPoolExecutor() as threads:
        list(threads.map(deliver, trackers))

    assert [each.problem for each in trackers] == [None] * 4
    (run,) = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    assert {each.run_id(PARENT) for each in outboxes} == {run.info.run_id}


def test_what_a_machine_tells_late_does_not_undo_the_end_that_another_one_told(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    outbox.put("0", "tags", {"hpo.state": "interrupted"})
    outbox.put("0", "status", {"status": "SCHEDULED"})  # and its machine was gone before it could tell
    time.sleep(0.01)
    other = of_a_machine(tmp_path, 1)
    other.put("0", "open", OPEN, once="open")
    other.put("0", "tags", {"hpo.state": "complete"})
    other.put("0", "status", {"status": "FINISHED"})
    delivered(other, tmp_path)

    delivered(outbox, tmp_path)

    run = client.get_run(outbox.run_id("0"))
    assert (run.info.status, run.data.tags["hpo.state"]) == ("FINISHED", "complete")
    time.sleep(0.01)
    outbox.put("0", "status", {"status": "RUNNING"})  # a trial that goes on after its end
    delivered(outbox, tmp_path)
    assert client.get_run(outbox.run_id("0")).info.status == "RUNNING"


def test_an_end_that_another_machine_has_told_keeps_its_time(client, outbox, tmp_path):
    outbox.put("0", "status", {"status": "FINISHED"})
    delivered(outbox, tmp_path)
    ended = client.get_run(outbox.run_id("0")).info.end_time
    time.sleep(0.01)
    other = of_a_machine(tmp_path, 1)
    other.put("0", "open", OPEN, once="open")
    other.put("0", "status", {"status": "FINISHED"})

    delivered(other, tmp_path)

    assert client.get_run(outbox.run_id("0")).info.end_time == ended


def test_a_run_deleted_in_the_ui_is_made_anew_with_all_its_points(client, outbox, tmp_path, caplog):
    delivered(outbox, tmp_path)
    before = outbox.run_id("0")
    client.delete_run(before)
    outbox.put("0", "metrics", {"step": 3, "metrics": {"a": 0.3}}, once="epoch:3")

    delivered(outbox, tmp_path)

    assert outbox.run_id("0") != before
    assert steps(client, outbox) == [0, 1, 2, 3]
    assert "was deleted: it is made anew" in caplog.text


def test_a_deleted_experiment_is_a_line_with_the_way_back_and_nothing_is_lost(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    experiment = client.get_experiment_by_name("s").experiment_id
    client.delete_experiment(experiment)
    outbox.put("1", "open", {**OPEN, "tags": {"hpo.study_id": "id", "optuna.trial_number": "1"}}, once="open")

    found = tracker(outbox, tmp_path)
    found.deliver()

    assert f"mlflow experiments restore --experiment-id {experiment}" in (found.problem or "")
    assert outbox.n_waiting() == 1
    client.restore_experiment(experiment)
    delivered(outbox, tmp_path)


def test_what_mlflow_refuses_is_told_and_holds_up_nothing(client, outbox, tmp_path, caplog):
    outbox.put("0", "metrics", {"step": 0, "metrics": {"not;a\nname": 1.0}})
    outbox.put("0", "tags", {"after": "it"})

    delivered(outbox, tmp_path)

    assert client.get_run(outbox.run_id("0")).data.tags["after"] == "it"
    assert "MLflow refuses metrics of trial 0" in caplog.text


def test_an_unreachable_server_is_a_problem_not_an_error(outbox):
    found = Tracker("http://127.0.0.1:9", outbox, "s", "id")

    found.deliver()

    assert found.problem
    assert outbox.n_waiting() == 5


def test_a_store_without_room_is_a_problem_told_in_a_line(outbox, template, small_disk, capfd):
    store = small_disk / "mlflow.db"
    store.write_bytes(template.read_bytes())
    ballast = filled(small_disk)
    found = Tracker(f"sqlite:///{store}", outbox, "s", "id")

    found.deliver()

    assert found.problem is not None
    assert "disk is full" in found.problem
    assert outbox.n_waiting() == 5
    ballast.unlink()
    while outbox.n_waiting():
        found.deliver()
        assert found.problem is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://me:secret@host", "MLFLOW_TRACKING_USERNAME"), ("file:///x", "need sqlite:///FILE or http"),
        ("http://", "names no host"), ("http://[::1", "is no URI"), ("postgresql://me:secret@h/d", "no user and password"),
        ("http://h:secret/path@x", "no user and password"), ("me:secret@h:5000", "no user and password"),
        ("http://h?token=secret", "must end before its"), ("ftp://h?token=secret", "is not supported"),
        ("http://h:99999", "a port that is none"), ("http://[secret]", "is no URI"),
        ("sqlite://me:secret@h/x.db", "no user and password"), ("http://me:secret\uff20h", "is no URI"), ("http://h:secret", "a port that is none"),
    ],
)  # fmt: skip
def test_a_tracking_uri_that_can_not_be_is_one_line_without_its_secret(uri, words):
    with pytest.raises(UserError) as caught:
        open_uri(uri)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_a_password_is_not_sent_unencrypted_to_another_machine_but_where_that_is_said_to_be_safe(name, monkeypatch):
    monkeypatch.setenv(name, "a secret")
    for uri in ("http://mlflow:5000", "http://10.0.0.3:5000", "http://127.0.0.1.evil.com"):
        with pytest.raises(
            UserError, match=f"'{uri}' would be sent {name} unencrypted; use https://, or set HPO_PLAIN"
        ):
            check_uri(uri)
    for uri in ("https://mlflow:5000", "http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"):
        assert check_uri(uri)

    monkeypatch.setenv("HPO_PLAIN_HTTP", "1")
    assert check_uri("http://mlflow:5000")


def test_nor_is_the_password_that_mlflow_reads_from_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HPO_PLAIN_HTTP", "0")
    assert check_uri("http://mlflow:5000")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_password = a secret\n")

    with pytest.raises(UserError, match=r"would be sent the password of .*/\.mlflow/credentials unencrypted"):
        check_uri("http://mlflow:5000")


def test_an_old_file_store_is_told_with_the_way_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("x")

    with pytest.raises(UserError, match="mlflow migrate-filestore"):
        open_uri("sqlite:///mlflow.db")


def test_a_store_of_another_version_is_told_with_the_way_on(template, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")

    with pytest.raises(UserError, match="mlflow db upgrade"):
        open_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_rows_that_wait_when_their_run_is_found_deleted_all_arrive(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    client.delete_run(outbox.run_id("0"))
    outbox.put("0", "metrics", {"step": 3, "metrics": {"a": 0.3}}, once="epoch:3")
    outbox.put("0", "tags", {"late": "tag"})
    outbox.put("0", "status", {"status": "FINISHED"})

    delivered(outbox, tmp_path)

    run = client.get_run(outbox.run_id("0"))
    assert (run.info.status, run.data.tags["late"]) == ("FINISHED", "tag")


def test_an_experiment_deleted_while_it_works_loses_nothing_and_may_come_back(client, outbox, tmp_path):
    found = delivered(outbox, tmp_path)
    experiment = client.get_experiment_by_name("s").experiment_id
    client.delete_experiment(experiment)
    outbox.put("0", "metrics", {"step": 3, "metrics": {"a": 0.3}}, once="epoch:3")
    for _ in range(4):
        found.deliver()
    assert "mlflow experiments restore" in (found.problem or "")

    client.restore_experiment(experiment)
    for _ in range(3):
        found.deliver()

    assert found.problem is None
    assert outbox.n_waiting() == 0
    assert steps(client, outbox) == [0, 1, 2, 3]


def test_a_server_that_has_lost_everything_is_told_it_anew(client, outbox, template, tmp_path, caplog):
    delivered(outbox, tmp_path)
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    outbox.put("study", "tags", {"late": "tag"})

    for _ in range(3):
        delivered(outbox, tmp_path)

    assert "MLflow no longer has the run of the study" in caplog.text
    assert outbox.n_waiting() == 0
    assert steps(client, outbox) == [0, 1, 2]


@pytest.mark.usefixtures("client")
def test_another_server_is_told_everything_too(outbox, template, tmp_path):
    delivered(outbox, tmp_path)
    (tmp_path / "other.db").write_bytes(template.read_bytes())
    other = Tracker(f"sqlite:///{tmp_path / 'other.db'}", outbox, "s", "id")

    other.deliver()

    assert outbox.n_waiting() == 0
    points = MlflowClient(f"sqlite:///{tmp_path / 'other.db'}").get_metric_history(outbox.run_id("0"), "a")
    assert [m.step for m in points] == [0, 1, 2]


@pytest.mark.usefixtures("client")
def test_artifacts_that_were_deleted_are_not_taken_for_a_folder_that_was_moved(outbox, tmp_path, caplog):
    delivered(outbox, tmp_path)
    shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)

    delivered(outbox, tmp_path)

    assert "moved" not in caplog.text


def test_params_that_mlflow_refuses_do_not_hold_up_a_new_server(client, template, tmp_path):
    outbox = open_outbox(tmp_path / "outbox2", "s")
    outbox.put(PARENT, "open", STUDY, once="open")
    outbox.put("0", "open", {**OPEN, "params": {"lr (log)": 1}}, once="open")
    outbox.put("0", "metrics", {"step": 0, "metrics": {"a": 0.5}}, once="epoch:0")
    delivered(outbox, tmp_path)
    assert steps(client, outbox) == [0]
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    outbox.put(PARENT, "tags", {"late": "tag"})

    for _ in range(3):
        delivered(outbox, tmp_path)

    assert steps(client, outbox) == [0]


def test_trials_belong_to_a_study_run_that_was_made_anew(client, outbox, tmp_path):
    delivered(outbox, tmp_path)
    before = outbox.run_id("0")
    client.delete_run(outbox.run_id(PARENT))
    outbox.put(PARENT, "tags", {"late": "tag"})

    for _ in range(3):
        delivered(outbox, tmp_path)

    assert outbox.run_id("0") == before
    assert client.get_run(before).data.tags["mlflow.parentRunId"] == outbox.run_id(PARENT)
    assert steps(client, outbox) == [0, 1, 2]
