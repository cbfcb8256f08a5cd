"""The store in PostgreSQL: its lock, and what an outage of the server does to it."""

import sqlite3
import subprocess
import sys
import threading
import time
import uuid

import optuna
import psycopg
import pytest
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from hpo.errors import LockLostError, UserError
from hpo.postgres import _TAKE, FROZEN_SECONDS
from hpo.rows import add_trial
from hpo.storage import existing_store, is_away, open_store
from tests.hpo.postgres import a_server

RUNNING = create_trial(state=TrialState.RUNNING)


@pytest.fixture
def url(postgres):
    return postgres.url(uuid.uuid4().hex)


def test_the_url_is_shown_without_its_password_and_any_driver_s_name_will_do(url):
    plain = url.replace("postgresql+psycopg", "postgresql").replace("postgres:@", "postgres:secret@")

    store = open_store(plain)

    assert store.url.startswith("postgresql+psycopg://postgres:secret@")
    assert "secret" not in str(store)


def test_a_password_may_hold_what_optuna_would_fill_in(url):
    """`RDBStorage` calls `url.format(...)`: braces raise there."""
    store = open_store(url.replace("postgres:@", "postgres:a{b}%40{0}c@"))

    assert optuna.get_all_study_names(store.storage) == []


def test_eight_processes_open_an_empty_database_at_once(url):
    code = "import sys; from hpo.storage import open_store; open_store(sys.argv[1])"
    opening = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(8)]

    said = [process.communicate(timeout=120)[1] for process in opening]

    assert [process.returncode for process in opening] == [0] * 8, said


@pytest.mark.parametrize("lock", ["lock", "making"])
def test_of_many_only_one_holds_the_lock(url, lock):
    n_inside, most = 0, 0

    def count() -> None:
        nonlocal n_inside, most
        store = open_store(url)
        for _ in range(20):
            with getattr(store, lock)():
                n_inside += 1
                most = max(most, n_inside)
                time.sleep(0.002)
                n_inside -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_who_makes_a_study_s_run_holds_up_nobody_s_trials(url):
    with open_store(url).making(), open_store(url).lock():
        pass


def test_what_is_done_under_a_lock_that_was_lost_is_not_committed(url):
    store = open_store(url)
    study = optuna.create_study(storage=store.storage)
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"

    def start_one() -> None:
        with store.lock():
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute(end_all.encode())
            add_trial(store.engine, study._study_id, RUNNING)

    with pytest.raises(LockLostError):
        start_one()
    assert study.get_trials() == []


def test_a_frozen_holder_does_not_keep_the_lock_for_good(url, monkeypatch):
    monkeypatch.setattr("hpo.postgres._TAKE", _TAKE.replace(f"'{FROZEN_SECONDS}s'", "'300ms'"))
    frozen, other = open_store(url), open_store(url)
    study = optuna.create_study(storage=frozen.storage)

    def start_one() -> None:
        with frozen.lock():
            with other.lock():  # waits until the server has ended the session that holds it
                pass
            add_trial(frozen.engine, study._study_id, RUNNING)

    with pytest.raises(LockLostError):
        start_one()


def test_values_that_are_no_numbers_are_the_same_in_both_stores(url, tmp_path):
    found = []
    for place in (url, f"sqlite:///{tmp_path / 'hpo.db'}"):
        study = optuna.create_study(storage=open_store(place).storage)
        study.add_trial(create_trial(value=float("inf"), intermediate_values={0: float("nan"), 1: float("-inf")}))
        (trial,) = study.get_trials()
        found.append((trial.value, str(trial.intermediate_values)))

    assert found[0] == found[1] == (float("inf"), "{0: nan, 1: -inf}")


def test_an_outage_is_waited_for_and_what_was_begun_is_begun_again():
    with a_server() as server:
        store = open_store(server.url("x"), patience_seconds=60)
        study = optuna.create_study(storage=store.storage)
        tries = 0

        def start_one() -> int:
            nonlocal tries
            tries += 1
            with store.lock():
                if tries == 1:
                    server.restart()
                return add_trial(store.engine, study._study_id, RUNNING)

        store.lasting(start_one)
        assert tries > 1
        assert [t.state for t in study.get_trials()] == [TrialState.RUNNING]

        server.stop()
        later = threading.Timer(1.0, server.start)
        later.start()
        store.lasting(start_one)
        later.join()
        assert len(study.get_trials()) == 2

        server.stop()
        impatient = open_impatiently(server)
        assert "connection" in impatient
        server.start()


def open_impatiently(server) -> str:
    with pytest.raises(UserError) as caught:
        existing_store(server.url("x", fresh=False))
    return str(caught.value)


def test_a_part_of_what_is_begun_again_is_not_begun_again_by_itself(url):
    store = open_store(url, patience_seconds=60)
    tries = []

    def part() -> None:
        tries.append("part")
        if len(tries) < 4:
            raise LockLostError("lost")

    def whole() -> str:
        tries.append("whole")
        store.lasting(part)
        return "done"

    assert store.lasting(whole) == "done"
    assert tries == ["whole", "part", "whole", "part"]


def test_a_mistake_is_no_outage():
    assert not is_away(UserError("no"))
    assert not is_away(ValueError("no"))
    assert is_away(LockLostError("lost"))


@pytest.mark.parametrize(
    ("statement", "away"),
    [
        ("SELECT * FROM nowhere", False),
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("SET TRANSACTION READ ONLY; CREATE TABLE t (x int)", True),
    ],
)
def test_only_what_passes_by_itself_is_an_outage(url, statement, away):
    engine = open_store(url).engine

    def run() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    with pytest.raises(SQLAlchemyError) as caught:
        run()
    assert is_away(caught.value) is away


def test_in_sqlite_only_a_lock_is_an_outage(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path / 'hpo.db'}").engine

    for text, away in (
        ("database is locked", True),
        ("no such table: x", False),
        ("unable to open database file", False),
    ):
        error = OperationalError("SELECT 1", {}, sqlite3.OperationalError(text))
        assert is_away(error) is away
    assert engine.dialect.name == "sqlite"


def test_twenty_lanes_find_a_connection_each(url, tmp_path):
    for place in (url, f"sqlite:///{tmp_path / 'hpo.db'}"):
        store = open_store(place)
        taken = [store.engine.connect() for _ in range(20)]  # of a pool with a limit the sixteenth waits, and fails

        assert len({id(each.connection.dbapi_connection) for each in taken}) == 20

        for each in taken:
            each.close()
        store.engine.dispose()
