"""A trial has one owner; a dead one is seen at once on its host, and by a still counter from another."""

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.leases import GRACE_SECONDS, Leases, Owner, become_owner
from hpo.sqlite import sqlite_engine
from hpo.storage import open_store


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def leases(tmp_path, request):
    if request.param == "sqlite":
        engine = sqlite_engine(tmp_path / "s.db")
    else:
        engine = open_store(request.getfixturevalue("postgres").url(uuid.uuid4().hex)).engine
    found = Leases(engine, tmp_path / "owners", Clock())
    found.create_table()
    return found


def test_a_live_owner_holds_and_one_that_left_does_not(leases, tmp_path):
    owner = become_owner(tmp_path / "owners")
    lease = leases.claim(3, owner)

    assert leases.holds(lease)
    assert not leases.is_free(3)
    leases.release(lease)
    assert leases.is_free(3)
    leases.leave(owner)


def test_a_killed_owner_is_seen_at_once(leases, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hpo.leases import *; from sqlalchemy import create_engine\n"
        "leases = Leases(create_engine(sys.argv[2]), Path(sys.argv[1]) / 'owners')\n"
        "owner = become_owner(Path(sys.argv[1]) / 'owners'); leases.claim(1, owner); print('mine', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    url = leases.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), url], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    process.stdout.readline()

    assert not leases.is_free(1)
    assert leases.abandoned() == []
    process.kill()
    process.wait()
    assert leases.is_free(1)
    assert leases.abandoned() == [1]  # whoever opens a study settles it, and what comes after it must see the same
    assert leases.is_free(1)
    assert [*(tmp_path / "owners").glob("*.owner")] == []


def test_a_new_owner_gets_a_greater_token_and_the_late_one_is_refused(leases, tmp_path):
    first = leases.claim(1, become_owner(tmp_path / "owners"))
    second = leases.claim(1, become_owner(tmp_path / "owners"))

    assert second.token == first.token + 1
    assert not leases.holds(first)
    assert not leases.renew(first)
    leases.release(first)
    assert leases.holds(second)


def test_from_another_host_only_a_counter_that_stands_still_frees(leases, tmp_path):
    far = Owner("far", "other-host", "boot", tmp_path / "not-seen.owner", None)
    lease = leases.claim(1, far)
    clock = leases.clock

    def free_after(seconds: float) -> bool:
        for _ in range(int(seconds)):
            clock.now += 1
            leases.look()
        return leases.is_free(1)

    assert not free_after(GRACE_SECONDS - 1)
    leases.renew(lease)
    assert not free_after(2)
    assert free_after(GRACE_SECONDS)


def test_while_nobody_could_look_no_counter_stood_still(leases, tmp_path):
    leases.claim(1, Owner("far", "other-host", "boot", tmp_path / "not-seen.owner", None))
    assert not leases.is_free(1)

    leases.clock.now += 10 * GRACE_SECONDS  # the store was away, or this process was stopped

    assert not leases.is_free(1)


def test_deaths_count_only_with_no_new_epoch_between(leases, tmp_path):
    leases.claim(1, become_owner(tmp_path / "owners"))

    assert [leases.note_death(1, epochs) for epochs in (2, 2, 3, 3, 3)] == [1, 2, 1, 2, 3]


def test_after_a_reboot_or_an_orderly_end_a_trial_is_free_at_once(leases, tmp_path):
    owner = become_owner(tmp_path / "owners")
    leases.claim(1, owner)
    leases.claim(2, replace(owner, boot="the boot before"))

    assert not leases.is_free(1)
    assert leases.is_free(2)
    owner.lock.release()
    assert leases.is_free(1)


def test_an_owner_whose_file_can_not_be_seen_from_here_is_judged_by_its_counter(leases, tmp_path):
    owner = become_owner(tmp_path / "owners")
    leases.claim(1, owner)
    leases.claim(2, replace(owner, host="fer-0/", boot="another boot"))  # a container without an id of its own
    owner.file.unlink()

    assert not leases.is_free(1)
    assert not leases.is_free(2)
    for _ in range(int(GRACE_SECONDS) + 1):
        leases.clock.now += 1
        leases.look()
    assert leases.is_free(1)
    assert leases.is_free(2)


def test_a_dead_owners_file_stays_while_a_lease_elsewhere_rests_on_it(leases, tmp_path):
    other = become_owner(tmp_path / "owners")  # of a study in another store
    gone = become_owner(tmp_path / "owners")
    leases.claim(1, gone)
    other.lock.release()
    gone.lock.release()

    assert leases.abandoned() == [1]
    assert [*(tmp_path / "owners").glob("*.owner")] == [other.file]


def test_an_owner_file_that_may_not_be_looked_at_proves_nothing(leases, tmp_path, monkeypatch):
    owner = become_owner(tmp_path / "owners")
    leases.claim(1, owner)
    owner.lock.release()

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert not leases.is_free(1)


def test_within_one_kernel_the_file_decides_whatever_a_container_calls_its_host(leases, tmp_path):
    owner = become_owner(tmp_path / "owners")
    leases.claim(1, replace(owner, host="fer-0/"))

    assert not leases.is_free(1)
    owner.lock.release()
    assert leases.is_free(1)


def test_a_worker_frees_all_that_it_owns_and_nothing_of_its_other_lanes(leases, tmp_path):
    owner, lane = become_owner(tmp_path / "owners", "w"), become_owner(tmp_path / "owners", "w.1")
    leases.claim(1, owner)
    leases.claim(2, lane)

    leases.release_all(owner)

    assert leases.is_free(1)
    assert not leases.is_free(2)
