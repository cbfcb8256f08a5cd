"""A trial's folder at a URL: what another machine goes on with."""

import os
import threading
import time

import pytest

from hpo import mirror as module
from hpo.errors import UserError
from hpo.mirror import Mirror, open_mirror


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Mirror:
    monkeypatch.setattr(module, "COPY_SECONDS", 0.02)
    return open_mirror(f"file://{tmp_path}/shared", "toy")


def a_folder(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def contents(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def test_another_machine_goes_on_with_what_was_copied(mirror, tmp_path):
    here, there = a_folder(tmp_path / "a" / "7", state="one"), tmp_path / "b" / "7"

    with mirror.kept(7, here, token=1):
        (here / "state").write_text("two")
        (here / "checkpoints").mkdir()
        (here / "checkpoints" / "manifest").write_text("m")
    mirror.pull(7, there, token=2)

    assert (there / "state").read_text() == "two"
    assert (there / "checkpoints" / "manifest").read_text() == "m"
    mirror.let_go(7)
    mirror.let_go(7)
    assert not (tmp_path / "shared/toy/7/checkpoints").exists()


def test_what_is_gone_here_goes_there_and_what_is_written_last_is_copied_last(mirror, tmp_path):
    here, order = a_folder(tmp_path / "7", old="x"), []
    put_file = mirror.files.put_file

    def put(source, target):
        order.append(target.rpartition("/")[2])
        put_file(source, target)

    mirror.files.put_file = put
    try:
        with mirror.kept(7, here, token=1):
            while "old" not in order:
                time.sleep(0.01)
            (here / "old").unlink()
            a_folder(here, data="d")
            a_folder(here, manifest="names data")
            os.utime(here / "manifest", ns=(time.time_ns() + 10**9,) * 2)
    finally:
        del mirror.files.put_file

    assert order.index("data") < order.index("manifest")
    assert contents(tmp_path / "shared/toy/7") == {"data": "d", "manifest": "names data"}


def test_a_copy_of_an_earlier_owner_does_not_replace_what_is_here(mirror, tmp_path):
    here = a_folder(tmp_path / "7", state="mine")
    with mirror.kept(7, here, token=3):
        pass
    (here / "state").write_text("newer, not copied")

    mirror.pull(7, here, token=4)
    assert contents(here) == {"state": "newer, not copied"}

    other = a_folder(tmp_path / "other" / "7", state="old")
    mirror.pull(7, other, token=4)
    assert contents(other) == {"state": "mine"}
    mirror.pull(8, other, token=4)  # nothing was copied of it
    assert contents(other) == {"state": "mine"}


def test_a_store_that_is_away_costs_the_copy_not_the_trial(mirror, tmp_path, caplog):
    here, tried = a_folder(tmp_path / "7", state="x"), threading.Event()

    def refuse(*_):
        tried.set()
        raise OSError("no route to host")

    mirror.files.put_file = refuse
    try:
        with mirror.kept(7, here, token=1):
            tried.wait(10)
    finally:
        del mirror.files.put_file

    assert "no copy at" in caplog.text
    assert "no route to host" in caplog.text


@pytest.mark.parametrize("url", ["nope://x/y", "s4://bucket", "file:///proc/nope/x"])
def test_a_url_that_can_not_be_used_is_one_line(url):
    with pytest.raises(UserError, match="can't be used") as caught:
        open_mirror(url, "toy")
    assert "\n" not in str(caught.value)
