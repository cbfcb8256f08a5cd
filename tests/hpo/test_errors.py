"""A full disk is known as one, whoever found it full."""

import os
import sqlite3

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
import torch

from data.files import write, write_whole
from hpo.errors import disk_is_full
from model.checkpoint import CheckpointFolder, write_weights
from tests.end_to_end.stores import filled


def to_sqlite(disk, size):
    with sqlite3.connect(disk / "x.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS big (content BLOB)")
        connection.execute("INSERT INTO big VALUES (zeroblob(?))", (size,))


WRITERS = {
    "file": lambda disk, size: write_whole(disk / "x", bytes(size)),
    "weights": lambda disk, size: write_weights(disk / "x", {"w": torch.zeros(size // 4)}),
    "torch": lambda disk, size: write(disk / "x", lambda stream: torch.save(torch.zeros(size // 4), stream)),
    "checkpoint": lambda disk, size: CheckpointFolder(disk).save({"w": torch.zeros(size // 4)}, 1, (1, {})),
    "numpy": lambda disk, size: np.save(disk / "x.npy", np.zeros(size, np.uint8)),
    "csv": lambda disk, size: pd.DataFrame({"x": ["0" * (size // 8)] * 8}).to_csv(disk / "x"),
    "picture": lambda disk, size: matplotlib.figure.Figure((9, 9)).savefig(disk / "x.rgba", dpi=size // 10_000),
    "sqlite": to_sqlite,
}


@pytest.mark.parametrize("how", WRITERS)
def test_a_disk_that_is_full_is_known_as_that(small_disk, how):
    ballast = filled(small_disk)
    for size in (1 << 20, 1 << 25):  # a library may ask for much at once
        for room in (0, size // 2):
            os.truncate(ballast, ballast.stat().st_size - room)
            with pytest.raises(Exception) as found:  # noqa: PT011  each library raises its own
                WRITERS[how](small_disk, size)
            assert disk_is_full(found.value), (room, repr(found.value))
            filled(small_disk)


def test_what_only_sounds_like_it_is_not():
    assert not disk_is_full(OSError(13, "Permission denied"))
    assert not disk_is_full(RuntimeError("CUDA out of memory"))
