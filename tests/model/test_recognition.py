import threading

import cv2
import numpy as np

from model.detection import Box
from model.frames import Fault, Frame, Source
from model.recognition import as_json, as_lines, recognise

NAMES = ("angry", "happy")


class Network:
    """Says angry as far as a face is dark."""

    def probabilities(self, faces):
        dark = 1 - faces.mean(axis=(1, 2)) / 255
        return np.stack([dark, 1 - dark], axis=1).astype(np.float32)


def frames(source, n_frames, value=255):
    for index in range(n_frames):
        yield Frame(source, index, index / 10, np.full((60, 80, 3), value, np.uint8))


def recognised(items, detector):
    return recognise(items, detector, Network(), class_names=NAMES, image_size=8)


def test_each_frame_comes_in_order_with_its_faces_and_faults_pass_through():
    photo, broken = Source("a.png", "photo"), Source("b.png", "photo")

    def items():
        yield from frames(photo, 1)
        yield Fault(broken, "b.png: broken")
        yield from frames(photo, 1, value=0)

    first, fault, last = recognised(items(), lambda _: [Box(0, 0, 20), Box(30, 30, 40)])

    assert [face.emotion for face in (*first.faces, *last.faces)] == ["happy", "happy", "angry", "angry"]
    assert first.faces[1].box == Box(30, 30, 40)
    assert first.faces[0].probabilities == {"angry": 0.0, "happy": 1.0}
    assert fault.line == "b.png: broken"


def test_a_video_keeps_every_frame():
    results = list(recognised(frames(Source("a.avi", "video"), 30), lambda _: []))

    assert [result.frame.index for result in results] == list(range(30))


def test_a_live_source_loses_frames_rather_than_fall_behind():
    """Detection begins with a frame and goes on when all the others have come: only the newest has waited for it."""
    all_read = threading.Event()

    def items():
        yield from frames(Source("camera 0", "camera", live=True), 50)
        all_read.set()

    def slow(_):
        assert all_read.wait(60)
        return []

    indices = [result.frame.index for result in recognised(items(), slow)]

    assert indices[-1] == 49
    assert len(indices) <= 2


def test_a_picture_that_opencv_refuses_is_a_fault_and_the_next_is_recognised():
    calls = []

    def detector(_):
        calls.append(1)
        if len(calls) == 1:
            raise cv2.error("bad picture\nin detail")
        return []

    fault, result = recognised(frames(Source("a.png", "photo"), 2), detector)

    assert fault.line == "a.png: can't be worked on (bad picture)"
    assert result.faces == ()


def test_a_face_is_a_readable_line():
    (result,) = recognised(frames(Source("a.png", "photo"), 1, value=51), lambda _: [Box(3, 4, 20)])

    assert as_lines(result) == ["a.png: face 1 of 1 at 3,4 of 20×20: angry (angry 0.80, happy 0.20)"]
    assert as_json(result) == {
        "source": "a.png",
        "frame": None,
        "seconds": None,
        "faces": [{"box": [3, 4, 20, 20], "emotion": "angry", "probabilities": {"angry": 0.8, "happy": 0.2}}],
    }


def test_a_photo_without_a_face_says_so_and_a_videos_frame_stays_silent():
    (photo,) = recognised(frames(Source("a.png", "photo"), 1), lambda _: [])
    first, second = recognised(frames(Source("a.avi", "video"), 2), lambda _: [])

    assert as_lines(photo) == ["a.png: no face"]
    assert as_lines(first) == []
    assert as_json(second) == {"source": "a.avi", "frame": 1, "seconds": 0.1, "faces": []}
