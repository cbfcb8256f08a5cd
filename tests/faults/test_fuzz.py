"""The short form of `tests.faults.fuzz`: what reads files of users refuses what is broken in words of its own."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.data.rows import csv_text, npz_bytes, rows
from tests.data.test_bad_inputs import tarred, zipped
from tests.faults.fuzz import DRAWN, draw, read_file

pytestmark = pytest.mark.slow
SEED = 20_261_128
GOOD = csv_text(rows(7, ("Training",)))


def as_parquet() -> bytes:
    labels, pixels, usage = zip(*(line.split(",") for line in rows(7, ("Training",))), strict=True)
    stream = io.BytesIO()
    parquet.write_table(pa.table({"emotion": labels, "pixels": pixels, "Usage": usage}), stream)
    return stream.getvalue()


FILES = {
    "f.csv": GOOD,
    "f.zip": zipped({"fer2013.csv": GOOD}),
    "f.tar.gz": tarred({"a/fer2013.csv": GOOD}),
    "f.csv.gz": gzip.compress(GOOD),
    "f.npz": npz_bytes(pixels=np.zeros((7, 48, 48), np.uint8), emotion=np.arange(7), usage=np.zeros(7, int)),
    "f.parquet": as_parquet(),
}


@st.composite
def broken(draw_one, content: bytes) -> bytes:
    """The content with some of its bytes others, gone, or there again."""
    for _ in range(draw_one(st.integers(1, 4))):
        at = draw_one(st.integers(0, max(0, len(content) - 1)))
        n = draw_one(st.sampled_from((1, 2, 4, 8, 100, len(content))))
        new = draw_one(st.binary(max_size=8) | st.just(content[:n]))
        content = content[:at] + new + content[at + n :]
    return content


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_refused_in_words_or_read(name, tmp_path):
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(broken(FILES[name]))
    def check(content: bytes) -> None:
        read_file(tmp_path / name, content)

    read_file(tmp_path / name, FILES[name])
    check()


@pytest.mark.parametrize("what", DRAWN)
def test_drawn_checkpoints_and_studies_are_refused_in_words_or_read(what, tmp_path, capsys):
    draw(DRAWN[what](tmp_path), SEED, minutes=0.0)

    assert capsys.readouterr().out == f"seeds {SEED} to {SEED}: no find\n"
