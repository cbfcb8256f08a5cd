"""FER2013 in every form it comes in reads to the same bytes."""

import gzip
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import fer2013
from data.faces import EMOTIONS
from data.rows import RowFaultError, parse_pixels
from tests.data.rows import csv_text, npz_bytes, rows
from tests.data.test_bad_inputs import tarred, zipped

LINES = rows(42)


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "plain.csv").write_bytes(csv_text(LINES))
    return fer2013.load(tmp_path / "plain.csv", split="official")


def icml() -> bytes:
    parts = [line.split(",") for line in LINES]
    return csv_text([f"{e},{u},{p}" for e, p, u in parts], "emotion, Usage, pixels")


def npz() -> bytes:
    parts = [line.split(",") for line in LINES]
    names = ["Training", "PublicTest", "PrivateTest"]
    return npz_bytes(
        pixels=np.array([p.split(" ") for _, p, _ in parts], np.uint8).reshape(-1, 48, 48),
        emotion=np.array([e for e, _, _ in parts], np.uint8),
        usage=np.array([names.index(u) for _, _, u in parts], np.uint8),
    )


def parquet() -> bytes:
    stream = io.BytesIO()
    parts = [line.split(",") for line in LINES]
    frame = pd.DataFrame({"emotion": [int(e) for e, _, _ in parts], "pixels": [p for _, p, _ in parts]})
    frame.assign(Usage=[u for _, _, u in parts]).to_parquet(stream)
    return stream.getvalue()


FORMS = {
    "crlf.csv": lambda: csv_text(LINES, end="\r\n"),
    "bom.csv": lambda: b"\xef\xbb\xbf" + csv_text(LINES),
    "icml_face_data.csv": icml,
    "f.csv.gz": lambda: gzip.compress(csv_text(LINES)),
    "f.zip": lambda: zipped({"fer2013/fer2013.csv": csv_text(LINES), "test.csv": b"pixels\n1\n"}),
    "f.tar.gz": lambda: tarred({"fer2013/README": b"x", "fer2013/fer2013.csv": csv_text(LINES)}),
    "kaggle.zip": lambda: zipped(
        {
            "fer2013.tar.gz": tarred({"fer2013/fer2013.csv": csv_text(LINES)}),
            "icml_face_data.csv": b"",
            "train.csv": b"",
        }
    ),
    "f.npz": npz,
    "f.parquet": parquet,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_reads_to_the_same_faces(name, tmp_path, expected):
    (tmp_path / name).write_bytes(FORMS[name]())

    faces = fer2013.load(tmp_path / name, split="official")

    assert faces.digest == expected.digest
    assert np.array_equal(faces.images, expected.images)
    assert np.array_equal(faces.labels, expected.labels)
    assert {s: r.tolist() for s, r in faces.splits.items()} == {s: r.tolist() for s, r in expected.splits.items()}


def test_train_csv_has_quotes_and_no_usage(tmp_path, expected):
    parts = [line.split(",") for line in LINES]
    text = csv_text([f'{e},"{p}"' for e, p, _ in parts], "emotion,pixels", "\r\n")
    (tmp_path / "train.csv").write_bytes(text)

    faces = fer2013.load(tmp_path / "train.csv")

    assert np.array_equal(faces.images, expected.images)
    assert set(faces.splits) == {"train", "validation"}


def test_in_a_folder_fer2013_csv_goes_first_and_test_csv_is_passed_over(tmp_path, expected):
    folder = tmp_path / "several"
    folder.mkdir()
    (folder / "test.csv").write_bytes(b"pixels\n1\n")
    (folder / "train.csv").write_bytes(b"broken")
    (folder / "other.npz").write_bytes(b"broken")
    (folder / "icml_face_data.csv").write_bytes(b"broken")
    (folder / "fer2013.csv").write_bytes(csv_text(LINES))

    assert fer2013.load(folder, split="official").digest == expected.digest


def test_an_image_folder_is_split_by_content_and_class(tmp_path, caplog):
    random = np.random.default_rng(1)
    names = {"angry": 6, "disgusted": 6, "fearful": 6, "happy": 6, "sad": 6, "surprised": 6, "neutral": 6}
    for part in ("train", "test"):
        for name, n in names.items():
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(random.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / f"{i}.png")

    faces = fer2013.load(tmp_path / "images")

    assert faces.counts() == {"train": [5] * 7, "validation": [1] * 7, "test": [6] * 7}
    assert "seeded hash of the content" in caplog.text
    assert len(set(faces.labels[faces.limited(15).splits["train"]])) > 3  # not one class after the other


def test_without_leaks_no_validation_or_test_image_is_in_training(tmp_path):
    lines = rows(42)
    lines[-1] = lines[0].replace("Training", "PrivateTest")
    (tmp_path / "f.csv").write_bytes(csv_text(lines))

    kept = fer2013.load(tmp_path / "f.csv", split="official", without_leaks=True)

    assert 41 not in kept.splits["test"]
    assert len(kept.splits["test"]) == 13


def test_damaged_cache_is_made_again(tmp_path, expected):
    images = expected.images.copy()
    packed = next((tmp_path / "cache").rglob("images.npy"))
    content = bytearray(packed.read_bytes())
    content[500] ^= 1
    packed.write_bytes(content)

    again = fer2013.load(tmp_path / "plain.csv", split="official")

    assert again.digest == expected.digest
    assert np.array_equal(again.images, images)


@pytest.mark.slow
def test_eight_processes_that_open_one_source_at_once_get_the_same(tmp_path):
    (tmp_path / "f.csv").write_bytes(csv_text(rows(210)))
    code = f"from pathlib import Path; from data import fer2013; print(fer2013.load(Path({str(tmp_path / 'f.csv')!r})).digest)"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(8)]

    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]

    assert all(process.returncode == 0 for process in processes)
    assert len(set(outputs)) == 1
    assert len(outputs[0]) == 64


@given(st.binary(min_size=1, max_size=2304))
def test_pixels_in_range_read_back_as_they_are(values):
    pixels = list(values.ljust(2304, values[:1]))
    assert parse_pixels(" ".join(map(str, pixels))).ravel().tolist() == pixels


@given(st.integers(0, 2303), st.text(max_size=5))
def test_a_token_that_is_no_number_is_always_refused(position, token):
    tokens = ["1"] * 2304
    tokens[position] = f"x{token}"
    with pytest.raises(RowFaultError):
        parse_pixels(" ".join(tokens))


class TestRealFile:
    def test_paper_split_has_the_papers_counts(self, real_csv):
        counts = fer2013.load(real_csv, split="paper").counts()

        assert counts["train"] == [3319, 377, 3472, 6032, 4025, 2595, 4180]
        assert counts["validation"] == [676, 59, 625, 1183, 805, 576, 785]
        assert counts["test"] == [491, 55, 528, 879, 594, 416, 626]

    def test_check_finds_every_known_fault_in_little_memory(self, real_csv, tmp_path):
        code = (
            "import resource, sys; from data import prepare; prepare.main(sys.argv[1:]); "
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        # From a small parent: a child starts with its parent's peak.
        parent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {code!r}, {str(real_csv)!r}, '--check']))"
        done = subprocess.run([sys.executable, "-S", "-c", parent], capture_output=True, text=True, check=True)

        for words in (
            "1853 surplus exact copies in 1516 groups",
            "57 groups of equal images with different labels",
            "339 of the paper's validation images (7.2%)",
            "280 of PublicTest are in Training",
            "288 of PrivateTest are in Training",
            "245 of PrivateTest are in the paper's train",
            "12 blank images: rows 6458, 7629",
        ):
            assert words in done.stdout
        assert int(done.stdout.split()[-1]) < 400

    def test_without_leaks_drops_what_is_known(self, real_csv):
        splits = fer2013.load(real_csv, without_leaks=True).splits

        assert len(splits["validation"]) == 4709 - 339
        assert len(splits["test"]) == 3589 - 245


def test_class_names_are_in_the_order_of_the_labels():
    assert EMOTIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
