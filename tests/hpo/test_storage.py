import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from filelock import FileLock

from hpo.errors import StoreLockedError, UserError
from hpo.sqlite import reading
from hpo.storage import load_study, open_store, read_trials
from hpo.urls import masked, shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://u:secret@h/d", "write postgresql+psycopg://"), ("mysql://u:secret@h/d", "not supported"),
        ("nonsense", "is no URL"), ("host=h password=secret user=u", "is no URL"),
        ("postgresql://u@127.0.0.1/d?passwd=secret", "invalid connection option"),
        ("sqlite://", "names no file"), ("sqlite:///:memory:", "names no file"),
        ("postgresql+pg8000://u:secret@h/d", "is not supported, need postgresql+psycopg"),
        ("postgresql://u:secret@h", "names no database"),
        ("postgresql://u:se@cret@h/d", "must be written as %40"),
        ("postgresql://u:secret@127.0.0.1:1/d", "127.0.0.1"),
    ],
)  # fmt: skip
def test_a_url_that_can_not_be_is_one_line_without_its_secret(url, words):
    with pytest.raises(UserError) as caught:
        open_store(url)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc on this system")
def test_a_folder_that_takes_no_file_is_told_and_not_waited_for():
    with pytest.raises(UserError, match=r"/proc/hpo\.db: No such file or directory"):
        open_store("sqlite:////proc/hpo.db")


def test_a_password_is_masked_even_in_what_is_no_url():
    assert masked("x y://u:secret@h") == "x y***"
    assert masked("postgresql:/u:secret@h/x") == "postgresql***"
    assert masked("postgresql://u:sec@ret@h/x") == "postgresql://***"
    for slip in (
        "host=h password='se cret' user=u", "Host=h;Username=u;Password=secret", "postgresql://u:secret/d", "hhtp://u:secret",
        "postgresql://u/secret@h/d", "postgresql://u@h/d#password=secret", "postgresql://u@h/d&password=secret",
        "postgresql://u@h/d?sslmode=require;password=secret", "http:///#secret", "sqlite://u:secret@h/x.db",
    ):  # fmt: skip
        assert "cret" not in masked(slip)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
        ("--storage=postgresql://u:secret@h/d", "--storage=postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=secret", "postgresql://u@h/d?password=***"),
        ("postgresql://u@h/d?passwd=secret&sslmode=require", "postgresql://u@h/d?passwd=***&sslmode=require"),
        ("sftp://u:secret@h/d", "sftp://u:***@h/d"),
        ("my study.py", "my study.py"), ("--trials=3", "--trials=3"), ("s3://bucket/x", "s3://bucket/x"),
    ],
)  # fmt: skip
def test_an_argument_is_shown_without_a_secret(argument, words):
    assert shown(argument) == words


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "hpo.db").write_text("not a database, but long enough to be taken for one by its size" * 50)

    with pytest.raises(UserError, match="not a usable SQLite database"):
        open_store(f"sqlite:///{tmp_path / 'hpo.db'}")


def test_an_empty_file_is_no_store_and_stays_as_it_is(tmp_path):
    (tmp_path / "hpo.db").touch()

    with pytest.raises(UserError, match="an empty file, and no store"):
        open_store(f"sqlite:///{tmp_path / 'hpo.db'}")

    assert (tmp_path / "hpo.db").stat().st_size == 0


def test_trials_are_read_before_the_lock_is_taken_and_where_there_is_no_study_nothing_is(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'hpo.db'}")
    read_trials(store, "x")
    optuna.create_study(study_name="x", storage=store.storage).enqueue_trial({"a": 1})

    other = open_store(f"sqlite:///{tmp_path / 'hpo.db'}")
    with store.lock():
        read_trials(other, "x")

    assert len(load_study(other, "x").get_trials()) == 1


def test_an_unknown_study_lists_the_known(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'hpo.db'}")

    with pytest.raises(UserError, match="no study 'x' in .*; it holds none yet, python -m hpo.run starts one"):
        load_study(store, "x")
    for name in ("demo", "mine"):
        optuna.create_study(study_name=name, storage=store.storage)
    with pytest.raises(UserError, match="no study 'x' in .*; there are: demo, mine"):
        load_study(store, "x")
    with pytest.raises(UserError, match=r"no study 'mnie' in .*; did you mean mine\?"):
        load_study(store, "mnie")


def test_what_a_kill_left_of_a_store_in_the_making_goes_with_the_next(tmp_path):
    left = tmp_path / ".hpo.db.making-abc_1234"
    left.mkdir()
    (left / "hpo.db").write_bytes(b"half")
    mine = tmp_path / ".hpo.db.20261128"
    mine.mkdir()

    open_store(f"sqlite:///{tmp_path / 'hpo.db'}")

    assert not left.exists()
    assert mine.exists()


def test_the_store_is_made_whole_and_every_transaction_takes_the_write_lock(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'hpo.db'}")

    with store.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / "hpo.db", timeout=0).execute("BEGIN IMMEDIATE")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".hpo.db.")]


def test_who_only_reads_does_not_wait_for_who_reads_and_who_writes_takes_the_lock_at_once(tmp_path):
    stores = [open_store(f"sqlite:///{tmp_path / 'hpo.db'}") for _ in range(2)]
    optuna.create_study(study_name="s", storage=stores[0].storage).enqueue_trial({})

    with reading(), stores[0].engine.begin() as first:
        first.exec_driver_sql("SELECT * FROM trials").all()
        read_trials(stores[1], "s")  # which would wait for a minute, and fail

    other = sqlite3.connect(tmp_path / "hpo.db", timeout=0)
    with stores[0].engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")


def test_a_file_that_somebody_has_switched_to_wal_has_the_classic_journal_again_and_commits_reach_the_disk(
    tmp_path, caplog
):
    url, path = f"sqlite:///{tmp_path / 'hpo.db'}", tmp_path / "hpo.db"
    open_store(url)
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM studies").fetchall()

    beside = open_store(url)  # as long as another looks into it it stays as it is, and can be used
    optuna.create_study(study_name="s", storage=beside.storage)
    assert "is in WAL mode, and others are at it" in caplog.text
    connection.close()
    beside.engine.dispose()
    store = open_store(url)

    with store.engine.connect() as found:
        assert found.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        assert found.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert optuna.get_all_study_names(store.storage) == ["s"]


def test_a_lock_that_a_stopped_process_holds_is_waited_for_where_outages_are(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hpo.sqlite.LOCK_SECONDS", 0.2)
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    patient, impatient = open_store(url, patience_seconds=60), open_store(url)
    held = FileLock(tmp_path / "hpo.db.lock", thread_local=False)

    def under_the_lock() -> str:
        with patient.lock():
            return "mine"

    with held:
        with pytest.raises(StoreLockedError, match="held by another process"), impatient.lock():
            pass
        threading.Timer(1.0, lambda: held.release(force=True)).start()

        assert patient.lasting(under_the_lock) == "mine"
    assert "is it stopped?" in caplog.text


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_file_on_a_network_file_system_is_refused_and_one_beside_it_is_not(kind, tmp_path, monkeypatch):
    """optuna#820, #4994, #5385, #6036."""
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(tmp_path / "far"), fstype=kind),
    ]
    monkeypatch.setattr("hpo.sqlite.psutil.disk_partitions", lambda **_: mounts)
    (tmp_path / "far").mkdir()

    with pytest.raises(UserError, match=rf"on a network file system \({kind}\), where SQLite's locks do not hold"):
        open_store(f"sqlite:///{tmp_path}/far/hpo.db")
    assert list((tmp_path / "far").iterdir()) == []
    open_store(f"sqlite:///{tmp_path}/near.db")
