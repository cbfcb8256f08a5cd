import numpy as np
import pytest
from PIL import Image

from data import prepare
from tests.data.rows import csv_text, rows


@pytest.fixture
def csv_file(tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(csv_text(rows(42)))
    return tmp_path / "fer2013.csv"


def test_split_csv_writes_the_papers_two_files(csv_file, tmp_path):
    assert prepare.main([str(csv_file), "--split-csv", str(tmp_path / "out")]) == 0

    labels = (tmp_path / "out" / "labels.csv").read_text().split()
    pixels = np.loadtxt(tmp_path / "out" / "pixels.csv", delimiter=",", dtype=int)
    assert labels == ["emotion", *(str(i % 7) for i in range(42))]
    assert pixels.shape == (42, 2304)
    assert " ".join(map(str, pixels[3])) == rows(42)[3].split(",")[1]


def test_images_writes_every_face(csv_file, tmp_path):
    assert prepare.main([str(csv_file), "--images", str(tmp_path / "out")]) == 0

    image = np.asarray(Image.open(tmp_path / "out" / "Training" / "happy" / "00003.png"))
    assert " ".join(map(str, image.ravel())) == rows(42)[3].split(",")[1]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 42


def test_figures_draws_sample_and_histogram(csv_file, tmp_path):
    assert prepare.main([str(csv_file), "--figures", str(tmp_path / "out")]) == 0

    assert {p.name for p in (tmp_path / "out").iterdir()} == {"samples.png", "histogram.png"}
    assert Image.open(tmp_path / "out" / "histogram.png").size[0] > 500


def test_a_folder_with_something_in_it_is_left_alone(csv_file, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")

    assert prepare.main([str(csv_file), "--images", str(tmp_path / "out")]) == 2

    assert "name another" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
