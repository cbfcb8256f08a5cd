"""Where commands are placed on a cluster, and with what."""

import socket

import pytest

from hpo.cluster import Slot, _refuse_silent, address_of, placed_arguments, slots_of
from hpo.errors import UserError


def test_there_is_a_place_for_each_gpu_and_one_on_a_node_without():
    nodes = [
        {"NodeID": "a", "Resources": {"GPU": 2.0, "CPU": 16.0}},
        {"NodeID": "b", "Resources": {"CPU": 4.0}},
        {"NodeID": "head", "Resources": {}},
    ]

    assert list(slots_of(nodes)) == [Slot("a", 0, 1.0, 1.0), Slot("a", 1, 1.0, 1.0), Slot("b", 0, 0.0, 4.0)]


def test_a_place_gets_paths_that_hold_anywhere_and_neither_cluster_nor_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [
        "--study",
        "my.py",
        "--cluster=ray",
        "--storage",
        "postgresql://u:secret@h/d",
        "--trials",
        "9",
        "--data",
        "d",
    ]

    assert placed_arguments(given) == [
        "--study", str(tmp_path / "my.py"), "--data", str(tmp_path / "d"), "--trials", "9",
    ]  # fmt: skip
    assert placed_arguments(["--study", "fer", "-v"]) == ["--study", "fer", "-v"]


def test_a_cluster_is_rays():
    assert address_of("ray") is None
    assert address_of("ray:head:6379") == "head:6379"
    for cluster in (
        "slurm",
        "ray:",
        "ray:head",
        "ray:head:port",
        "ray:auto",
        "ray://head:10001",
        "ray:ray://head:10001",
    ):
        with pytest.raises(UserError, match="need ray or ray:HOST:PORT"):
            address_of(cluster)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:99999999", "a..b:6379"])
def test_an_address_at_which_nobody_listens_is_one_line(address):
    with pytest.raises(UserError, match="no cluster answers at HOST:PORT"):
        _refuse_silent(address)


def test_an_address_at_which_somebody_else_listens_is_one_line(monkeypatch):
    monkeypatch.setattr("hpo.cluster.ANSWER_SECONDS", 3.0)
    other = socket.create_server(("127.0.0.1", 0))
    with other, pytest.raises(UserError, match="does not answer as a cluster's head does"):
        _refuse_silent(f"127.0.0.1:{other.getsockname()[1]}")
