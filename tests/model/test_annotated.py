from pathlib import Path

import cv2
import numpy as np
import pytest

from data.errors import DataError
from model import annotated
from model.annotated import Outputs, Window, marked, video_writer, write_photo
from model.detection import Box
from model.frames import Frame, Source
from model.recognition import Face, Recognised

GREY = np.full((240, 320, 3), 90, np.uint8)


def result(*boxes, name="a.png", kind="photo", pixels=GREY):
    faces = tuple(Face(box, "happy", {"angry": 0.1, "happy": 0.9}) for box in boxes)
    return Recognised(Frame(Source(name, kind, None if kind == "camera" else Path(name)), 0, 0.0, pixels), faces)


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    found: list[int] = []
    while True:
        good, pixels = capture.read()
        if not good:
            return found, capture.get(cv2.CAP_PROP_FPS)
        found.append(round(float(pixels.mean())))


def test_a_face_is_marked_on_a_copy():
    drawn = marked(result(Box(100, 100, 80)))

    changed = (drawn != GREY).any(axis=2)
    assert changed[100:180, 100].all()
    assert changed[179, 100:180].all()
    assert not changed[110:170, 110:170].any()
    assert (GREY == 90).all()


def test_faces_at_and_beyond_the_edges_and_tiny_pictures_can_be_marked():
    assert marked(result(Box(-30, -30, 80), Box(300, 230, 50), Box(0, 0, 320))).shape == (240, 320, 3)
    assert marked(result(Box(0, 0, 3), pixels=np.zeros((3, 3, 3), np.uint8)), note="12.0 fps").shape == (3, 3, 3)


def test_a_picture_without_faces_stays_as_it_is():
    assert np.array_equal(marked(result()), GREY)


def test_copies_of_one_name_get_names_of_their_own(tmp_path):
    outputs = Outputs(tmp_path / "new" / "folder")
    names = ["x/a.jpg", "y/a.JPG", "a.png", "a.bmp"]

    assert [outputs.path(result(name=name)).name for name in names] == [
        "a.recognized.jpg", "a.2.recognized.jpg", "a.recognized.png", "a.2.recognized.png",
    ]  # fmt: skip
    assert outputs.path(result(name="v.avi", kind="video")).name == "v.recognized.mp4"
    assert outputs.path(result(name="camera 0", kind="camera")).name == "camera-0.recognized.mp4"
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_photo_is_written_in_its_suffixs_format_or_not_at_all(tmp_path):
    write_photo(tmp_path / "a.png", GREY)

    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), GREY)
    with pytest.raises(DataError, match=r"70000×1 pixels can't be written as \.jpg"):
        write_photo(tmp_path / "b.jpg", np.zeros((1, 70_000, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_video_has_every_frame_that_was_added(tmp_path):
    with video_writer(tmp_path / "a.mp4", 20.0) as add:
        for index in range(12):
            add(np.full((48, 64, 3), 20 * index, np.uint8), index / 20)

    found, rate = read_video(tmp_path / "a.mp4")
    assert [abs(value - 20 * index) < 10 for index, value in enumerate(found)] == [True] * 12
    assert rate == 20
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_keeps_its_speed_where_frames_were_left_out(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10.0) as add:
        for value, seconds in ((40, 0.0), (80, 0.3), (120, 0.31), (160, 0.5)):
            add(np.full((48, 64, 3), value, np.uint8), seconds)

    found, _ = read_video(tmp_path / "a.mp4")
    assert [round(value / 40) for value in found] == [1, 1, 1, 3, 3, 4]


def test_a_frame_of_another_size_takes_the_first_ones(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10.0) as add:
        add(np.full((48, 64, 3), 90, np.uint8), 0.0)
        add(np.full((20, 90, 3), 90, np.uint8), 0.1)

    assert len(read_video(tmp_path / "a.mp4")[0]) == 2


def test_nothing_is_left_of_a_video_that_was_broken_off(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"the one before")

    def interrupted():
        with video_writer(tmp_path / "a.mp4", 10.0) as add:
            add(GREY, 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"the one before"


def test_a_video_that_was_not_written_whole_is_told_and_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated, "_n_frames", lambda _: 1)

    def written():
        with video_writer(tmp_path / "a.mp4", 10.0) as add:
            for index in range(3):
                add(GREY, index / 10)

    with pytest.raises(DataError, match="could not be written whole"):
        written()

    assert list(tmp_path.iterdir()) == []


def test_the_window_shows_frames_per_second_of_the_last_thirty_and_ends_by_a_key(monkeypatch):
    """OpenCV's window stands in: it records, and q is pressed at the last frame."""
    shown, keys, now = [], iter([-1] * 39 + [ord("q")]), iter([100.0, *range(39)])
    monkeypatch.setattr(cv2, "imshow", lambda _, pixels: shown.append(pixels))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    window = Window(lambda: next(now))

    goes_on = [window.show(result(kind="camera", name="camera 0")) for _ in range(40)]

    assert goes_on == [True] * 39 + [False]
    assert window.rate() == 1.0
    assert len(shown) == 40


def test_a_photo_stays_in_the_window_until_a_key_or_until_the_window_is_closed(monkeypatch):
    keys, visible = iter([-1, -1, ord("n"), -1, -1]), iter([1.0, 1.0, 1.0, 1.0, 0.0])
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr(cv2, "imshow", lambda _, pixels: shown.append(pixels.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: next(visible))
    window = Window()

    assert window.show(result(pixels=np.zeros((2000, 4000, 3), np.uint8)))
    assert not window.show(result())
    assert shown == [(640, 1280, 3), (240, 320, 3)]
