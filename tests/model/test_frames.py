from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model import frames
from model.frames import Clock, Fault, Frame, of_camera, of_files


def write_video(path, n_frames, *, codec="MJPG", rate=20, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
    for index in range(n_frames):
        writer.write(np.full((size[1], size[0], 3), 8 * index, np.uint8))
    writer.release()


def lines(items):
    return [item.line for item in items if isinstance(item, Fault)]


class Camera:
    """A camera that gives some pictures, then none."""

    def __init__(self, n_frames, *, is_there=True):
        self.left, self.is_there, self.released = n_frames, is_there, False

    def isOpened(self):  # noqa: N802
        return self.is_there

    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros((48, 64, 3), np.uint8)

    def get(self, _):
        return 0.0

    def release(self):
        self.released = True


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("A.MP4", "mp4v")])
def test_a_video_gives_every_frame_with_its_time(tmp_path, name, codec):
    write_video(tmp_path / name, 12, codec=codec)

    found = list(of_files([tmp_path / name]))

    assert [(f.index, round(f.seconds, 3)) for f in found] == [(i, i / 20) for i in range(12)]
    assert [abs(float(f.pixels.mean()) - 8 * f.index) < 4 for f in found] == [True] * 12
    assert {(f.source.kind, f.source.rate, f.source.live) for f in found} == {("video", 20.0, False)}


def test_photos_and_videos_come_in_the_order_they_are_named_and_faults_between_them(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    write_video(tmp_path / "b.avi", 2)

    found = list(of_files([tmp_path / "a.png", tmp_path / "none.png", tmp_path / "b.avi", tmp_path / "a.png"]))

    assert [type(item) for item in found] == [Frame, Fault, Frame, Frame, Frame]
    assert [item.source.path.name for item in found] == ["a.png", "none.png", "b.avi", "b.avi", "a.png"]
    assert found[0].source is not found[4].source


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_what_is_no_file_to_read_is_one_line(tmp_path, name):
    path = tmp_path / name

    assert lines(of_files([path])) == [f"{path}: no such file"]
    path.write_bytes(b"")
    assert lines(of_files([path])) == [f"{path}: an empty file"]
    path.unlink()
    path.mkdir()
    assert lines(of_files([path])) == [f"{path}: a folder; name the photos in it"]
    assert lines(of_files([Path("a\0b.png")])) != []


def test_a_broken_video_is_one_line(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 999)

    assert lines(of_files([tmp_path / "a.mp4"])) == [f"{tmp_path / 'a.mp4'}: no video that can be read"]


def test_a_video_that_ends_early_gives_its_frames_and_says_so():
    class Half(Camera):
        def get(self, what):
            return {cv2.CAP_PROP_FRAME_COUNT: 30.0, cv2.CAP_PROP_FPS: 25.0}.get(what, 10.0)

    found = list(frames._video(frames.Source("a.avi", "video"), Half(12), live=False, clock=Clock()))

    assert len(found) == 13
    assert lines(found) == ["a.avi: broken after 12 of 30 frames"]


def test_a_video_of_huge_frames_is_refused_before_one_is_decoded():
    class Huge(Camera):
        def get(self, _):
            return 20_000.0

    capture = Huge(3)

    assert lines(frames._video(frames.Source("a.avi", "video"), capture, live=False, clock=Clock())) == [
        "a.avi: 20000×20000 pixels, more than 100 megapixels"
    ]
    assert (capture.left, capture.released) == (3, True)


def test_a_live_video_keeps_its_own_speed(tmp_path):
    """The clock is the test's: reading takes no time on it, sleeping all that is asked for."""
    write_video(tmp_path / "a.avi", 4)
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(round(seconds, 6))
        now[0] += seconds

    found = list(of_files([tmp_path / "a.avi"], live=True, clock=Clock(lambda: now[0], sleep)))

    assert slept == [0.05] * 3
    assert all(item.source.live for item in found)


def test_a_camera_gives_frames_by_the_clock_until_it_ends_and_is_released():
    camera, now = Camera(3), iter([10.0, 10.0, 10.5, 11.25])

    found = list(of_camera(0, opened=lambda _: camera, clock=Clock(lambda: next(now))))

    assert [(item.index, item.seconds) for item in found[:3]] == [(0, 0.0), (1, 0.5), (2, 1.25)]
    assert lines(found) == ["camera 0: gives no more pictures"]
    assert found[0].source.live
    assert camera.released


def test_a_camera_that_is_not_there_or_gives_nothing_is_one_line():
    assert lines(of_camera(7, opened=lambda _: Camera(0, is_there=False))) == [
        "camera 7: can't be opened; is it there, and free?"
    ]
    assert lines(of_camera(7, opened=lambda _: Camera(0))) == ["camera 7: gives no picture"]


def test_a_stream_that_is_closed_releases_its_camera():
    camera = Camera(10)
    stream = of_camera(0, opened=lambda _: camera)
    next(stream)

    stream.close()

    assert camera.released
