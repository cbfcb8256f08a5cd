import cv2
import numpy as np
import pytest

from data.errors import DataError
from data.synthetic import draw_face
from model.detection import Box, cut_faces, make_detector


def with_faces(places, *, shape=(480, 640), side=144):
    """Drawn faces at (x, y) on grey: uint8 [H, W, 3]."""
    picture = np.full(shape, 90, np.uint8)
    for x, y in places:
        face = draw_face("happy", 48, np.random.default_rng(0), 0.0)
        picture[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.dstack([picture] * 3)


def near(box, x, y, side):
    """Whether a box's middle is that of a face drawn at (x, y), and its size a face's."""
    off = max(abs(box.x + box.side / 2 - x - side / 2), abs(box.y + box.side / 2 - y - side / 2))
    return off < side / 8 and 0.6 * side < box.side < 1.1 * side


def test_the_cascade_finds_each_face_once_from_left_to_right():
    places = [(430, 40), (40, 300), (230, 160)]

    boxes = make_detector()(with_faces(places))

    assert [near(box, *place, 144) for box, place in zip(boxes, sorted(places), strict=True)] == [True] * 3


def test_the_cascade_finds_no_face_where_there_is_none():
    detect = make_detector()

    assert detect(np.full((480, 640, 3), 90, np.uint8)) == []
    assert detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert detect(np.zeros((3, 5000, 3), np.uint8)) == []


@pytest.mark.parametrize("side", [1280, 640])
def test_boxes_in_a_large_photo_are_in_its_own_pixels(side):
    boxes = make_detector(side=side)(with_faces([(2000, 700)], shape=(2400, 3200), side=800))

    assert len(boxes) == 1
    assert near(boxes[0], 2000, 700, 800)


@pytest.mark.parametrize(("x", "y", "side"), [(10, 20, 48), (20, 0, 96), (5, 7, 72)])
def test_a_face_is_cut_out_grey_and_resized_by_area(x, y, side):
    """Each pixel is the mean of those it stands for."""
    picture = np.random.default_rng(0).integers(0, 255, (100, 120, 3), np.uint8)

    faces = cut_faces(picture, [Box(x, y, side)], 24)

    assert faces.dtype == np.uint8
    assert faces.shape == (1, 24, 24)
    grey = cv2.cvtColor(picture[y : y + side, x : x + side], cv2.COLOR_BGR2GRAY)
    means = grey.reshape(24, side // 24, 24, side // 24).mean(axis=(1, 3))
    assert np.abs(faces[0] - means).max() <= 0.5


def test_beyond_the_edge_the_picture_goes_on_in_its_edges_colour():
    picture = np.full((40, 40, 3), 200, np.uint8)

    faces = cut_faces(picture, [Box(-10, -15, 30), Box(25, 30, 30), Box(-5, -5, 60)], 16)

    assert (faces == 200).all()


def test_no_boxes_are_no_faces():
    assert cut_faces(np.zeros((9, 9, 3), np.uint8), [], 48).shape == (0, 48, 48)


def test_yunets_rectangles_become_squares_of_their_longer_side(tmp_path, monkeypatch):
    class YuNet:
        size = (0, 0)

        def setInputSize(self, size):  # noqa: N802
            self.size = size

        def detect(self, pixels):
            if self.size == (0, 0):
                return 1, None
            assert self.size == (pixels.shape[1], pixels.shape[0])
            return 1, np.array([[100, 50, 80, 100, *[0] * 10, 0.9], [-500, 0, 10, 10, *[0] * 10, 0.9]], np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: YuNet())
    (tmp_path / "yunet.onnx").write_bytes(b"stands in")

    boxes = make_detector(tmp_path / "yunet.onnx")(np.zeros((480, 640, 3), np.uint8))

    assert boxes == [Box(89, 49, 102)]  # 100 and its margin, around the middle (140, 100)


def test_a_file_that_is_no_detector_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a network")

    with pytest.raises(DataError, match=r"bad\.onnx: no face detector that can be read"):
        make_detector(tmp_path / "bad.onnx")
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        make_detector(tmp_path / "none.onnx")
