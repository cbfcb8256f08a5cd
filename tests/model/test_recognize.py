"""The command on drawn faces: what it prints, what it writes, its exit codes."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import DataError
from data.faces import EMOTIONS
from data.synthetic import draw_face
from hpo.errors import UserError
from model import annotated, frames, recognize
from model.exported import Classifier, Preparation
from model.network import build_network
from studies import recognize as with_champion

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    weights = torch.Generator().manual_seed(1)
    built = build_network(dropout=0, pool_stride=2, image_size=24, weights=weights, masks=None)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    Classifier(built, Preparation(2, 24, 120.0, 60.0, EMOTIONS, {})).save(path)
    return str(path)


@pytest.fixture
def run(network, capsys, tmp_path, monkeypatch):
    """Runs the command in a folder of its own: exit code, lines of stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = recognize.main([*arguments, "--model", network])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


def picture(*places, shape=(300, 400), side=144):
    """Drawn faces at (x, y) on grey: uint8 [H, W]."""
    found = np.full(shape, 90, np.uint8)
    face = draw_face("happy", 48, np.random.default_rng(0), 0.0)
    for x, y in places:
        found[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    return found


def write_video(path, n_frames=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (400, 300))
    for index in range(n_frames):
        writer.write(np.dstack([picture((100 + 4 * index, 80))] * 3))
    writer.release()


def n_frames_of(path):
    return annotated._n_frames(Path(path))


def boxes(lines):
    return [json.loads(line)["faces"][0]["box"] for line in lines]


def test_a_face_is_a_line_with_its_box_emotion_and_probabilities(run):
    cv2.imwrite("a.png", picture((100, 80)))

    code, out, err = run("a.png")

    assert (code, err, len(out)) == (0, [], 1)
    chances = ", ".join(rf"{name} 0\.\d\d" for name in EMOTIONS)
    assert re.fullmatch(rf"a\.png: face 1 of 1 at 1\d\d,\d\d of 1\d\d×1\d\d: \w+ \({chances}\)", out[0])


def test_json_is_an_object_a_photo_whose_probabilities_sum_to_one(run):
    cv2.imwrite("a.png", picture((100, 80)))
    cv2.imwrite("b.png", picture())

    code, out, _ = run("a.png", "b.png", "--json", "--output", "out")

    first, second = map(json.loads, out)
    (face,) = first["faces"]
    assert code == 0
    assert (first["source"], first["frame"], second) == (
        "a.png", None, {"source": "b.png", "frame": None, "seconds": None, "faces": []},
    )  # fmt: skip
    assert tuple(face["probabilities"]) == EMOTIONS
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert face["emotion"] == max(face["probabilities"], key=face["probabilities"].get)


def test_no_face_is_said_and_is_no_error(run):
    cv2.imwrite("a.png", picture())

    assert run("a.png") == (0, ["a.png: no face"], [])


def test_twenty_faces_are_twenty_lines(run):
    cv2.imwrite("a.png", picture(*[(10 + 155 * (i % 5), 10 + 155 * (i // 5)) for i in range(20)], shape=(640, 800)))

    code, out, _ = run("a.png")

    assert (code, len(out)) == (0, 20)
    assert out[19].startswith("a.png: face 20 of 20 at ")


def test_turned_grey_deep_and_transparent_files_give_the_same_face(run):
    grey = picture((100, 80))
    Image.fromarray(grey).save("grey.png")
    cv2.imwrite("deep.png", grey.astype(np.uint16) * 257)
    cv2.imwrite("alpha.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone held upright saves it: on its side
    Image.fromarray(grey).transpose(Image.Transpose.ROTATE_90).save("turned.jpg", exif=exif, quality=95)

    code, out, err = run("grey.png", "deep.png", "alpha.png", "turned.jpg", "--json")

    assert (code, err) == (0, [])
    first, *others = boxes(out)
    assert others[:2] == [first, first]
    assert np.abs(np.subtract(others[2], first)).max() <= 4


def test_what_cant_be_read_is_one_line_each_and_the_others_are_recognised(run):
    cv2.imwrite("good.png", picture((100, 80)))
    Path("empty.jpg").touch()
    Path("broken.png").write_bytes(Path("good.png").read_bytes()[:300])
    Path("letter.txt").write_text("Dear Sir or Madam")
    Path("folder").mkdir()
    Path("film.mp4").write_bytes(b"no film" * 999)

    code, out, err = run("empty.jpg", "broken.png", "letter.txt", "folder", "film.mp4", "none.png", "good.png")

    assert code == 2
    assert [line.partition(":")[0] for line in err] == [
        "empty.jpg", "broken.png", "letter.txt", "folder", "film.mp4", "none.png",
    ]  # fmt: skip
    assert len(out) == 1
    assert out[0].startswith("good.png: face 1 of 1")


def test_annotated_copies_are_written_into_a_folder_that_is_made(run):
    cv2.imwrite("a.png", picture((100, 80)))
    Image.fromarray(picture((100, 80))).save("b.jpg")

    code, out, _ = run("a.png", "b.jpg", "--output", "new/folder")

    assert code == 0
    assert [line for line in out if line.startswith("written")] == [
        "written: new/folder/a.recognized.png", "written: new/folder/b.recognized.jpg",
    ]  # fmt: skip
    assert {p.name for p in Path("new/folder").iterdir()} == {"a.recognized.png", "b.recognized.jpg"}
    drawn = cv2.imread("new/folder/a.recognized.png")
    assert (drawn[..., 0] != drawn[..., 2]).any()


def test_without_output_nothing_is_written(run, tmp_path):
    cv2.imwrite("a.png", picture((100, 80)))

    run("a.png")

    assert [p.name for p in tmp_path.iterdir() if p.suffix] == ["a.png"]


def test_an_output_that_is_a_file_is_refused_in_a_line(run):
    cv2.imwrite("a.png", picture())

    code, out, err = run("a.png", "--output", "a.png")

    assert (code, out) == (2, [])
    assert err == ["a.png: File exists"]


def test_a_copy_that_cant_be_written_is_a_line_and_the_others_are(run, monkeypatch):
    write_photo = annotated.write_photo

    def refuses_a(path, pixels):
        if path.name.startswith("a"):
            raise DataError(f"{path}: too wide")
        write_photo(path, pixels)

    monkeypatch.setattr(annotated, "write_photo", refuses_a)
    for name in ("a.png", "b.png"):
        cv2.imwrite(name, picture())

    code, _, err = run("a.png", "b.png", "--output", "out")

    assert (code, err) == (2, ["out/a.recognized.png: too wide"])
    assert [p.name for p in Path("out").iterdir()] == ["b.recognized.png"]


def test_a_video_is_annotated_with_every_frame(run):
    write_video("a.avi", 10)

    code, out, err = run("a.avi", "--output", "out")

    assert (code, err) == (0, [])
    assert [line[: len("a.avi: frame 0")] for line in out[:10]] == [f"a.avi: frame {i}" for i in range(10)]
    assert out[10] == "written: out/a.recognized.mp4"
    assert out[11].startswith("a.avi: 10 frames, 10 with a face, 0 left out, ")
    assert n_frames_of("out/a.recognized.mp4") == 10


def test_json_of_a_video_is_an_object_a_frame_and_nothing_else(run):
    write_video("a.avi", 5)

    code, out, _ = run("a.avi", "--json", "--output", "out")

    assert code == 0
    assert [(json.loads(line)["frame"], json.loads(line)["seconds"]) for line in out] == [(i, i / 10) for i in range(5)]


class Camera:
    """A camera that gives pictures with a face, then none."""

    def __init__(self, n_frames):
        self.left = n_frames

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.left -= 1
        return self.left >= 0, np.dstack([picture((100, 80))] * 3)

    def get(self, _):
        return 10.0

    def release(self):
        pass


def test_a_camera_is_recognised_until_it_ends(run, monkeypatch):
    of_camera = frames.of_camera
    monkeypatch.setattr(frames, "of_camera", lambda number: of_camera(number, opened=lambda _: Camera(5)))

    code, out, err = run("--camera", "0", "--json")

    assert (code, err) == (2, ["camera 0: gives no more pictures"])
    assert json.loads(out[-1])["frame"] == 4  # the newest always comes


def test_a_camera_whose_video_cant_be_written_is_recognised_all_the_same(run, monkeypatch):
    of_camera = frames.of_camera
    monkeypatch.setattr(frames, "of_camera", lambda number: of_camera(number, opened=lambda _: Camera(5)))

    def refuses(_video, _pixels):
        raise DataError("out: no video can be written")

    monkeypatch.setattr(annotated._Video, "_open", refuses)

    code, out, err = run("--camera", "0", "--json", "--output", "out")

    assert (code, err) == (2, ["out: no video can be written", "camera 0: gives no more pictures"])
    assert json.loads(out[-1])["frame"] == 4
    assert list(Path("out").iterdir()) == []


def test_ctrl_c_ends_a_camera_quietly_and_keeps_its_video(run, monkeypatch):
    of_camera, say = frames.of_camera, recognize._say
    monkeypatch.setattr(frames, "of_camera", lambda number: of_camera(number, opened=lambda _: Camera(10**6)))

    said: list[int] = []

    def interrupted(result, **how):
        if len(said) == 3:
            raise KeyboardInterrupt
        said.append(result.frame.index)
        say(result, **how)

    monkeypatch.setattr(recognize, "_say", interrupted)

    code, _, err = run("--camera", "0", "--output", "out")

    assert (code, err) == (130, [])
    assert n_frames_of("out/camera-0.recognized.mp4") >= 1


def test_ctrl_c_in_a_video_leaves_no_half_of_its_copy(run, monkeypatch):
    write_video("a.avi", 5)
    say = recognize._say

    def interrupted(result, **how):
        if result.frame.index == 3:
            raise KeyboardInterrupt
        say(result, **how)

    monkeypatch.setattr(recognize, "_say", interrupted)

    code, out, err = run("a.avi", "--output", "out")

    assert (code, len(out), err) == (130, 3, [])
    assert list(Path("out").iterdir()) == []


def test_a_window_needs_an_opencv_with_windows_and_a_display(run, monkeypatch):
    cv2.imwrite("a.png", picture())
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(annotated, "has_windows", lambda: False)

    code, out, (line,) = run("a.png", "--show")

    assert (code, out) == (2, [])
    assert "pip install 'fer-hpo[window]'" in line
    monkeypatch.setattr(annotated, "has_windows", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    assert run("a.png", "--show") == (2, [], ["--show needs a display, and there is none (DISPLAY is not set)"])


def test_a_window_ends_by_q_and_is_taken_away(run, monkeypatch):
    write_video("a.avi", 8)
    shown, closed = [], []
    monkeypatch.setattr(annotated, "has_windows", lambda: True)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda _, pixels: shown.append(pixels))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: closed.append(1))

    code, out, err = run("a.avi", "--show", "--json")

    assert (code, len(out), len(shown), closed, err) == (0, 3, 3, [1], [])


def test_a_missing_opencv_is_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)

    assert run("a.png") == (2, [], ["needs OpenCV: pip install 'fer-hpo[recognize]'"])


@pytest.mark.parametrize("content", [None, b"", b"no network at all"])
def test_a_model_that_is_none_is_one_line(tmp_path, capsys, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)

    assert recognize.main(["a.png", "--model", str(path)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: no ")


@pytest.mark.parametrize("arguments", [[], ["a.png", "--camera", "0"], ["--camera", "front"], ["--camera", "-1"]])
def test_arguments_that_dont_go_together_are_refused(run, arguments):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)

    assert ended.value.code == 2


@pytest.mark.parametrize("module", ["model.recognize", "studies.recognize"])
def test_help_loads_neither_torch_nor_opencv_nor_mlflow(module):
    code = (
        f"import sys; from {module} import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'cv2', 'mlflow', 'optuna', 'numpy', 'PIL'} & set(sys.modules)) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "--camera" in done.stdout


@pytest.mark.slow
def test_the_command_ends_quietly_when_nobody_reads_its_output(network, tmp_path):
    write_video(tmp_path / "a.avi", 30)
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-m", "model.recognize", str(tmp_path / "a.avi"), "--model", network],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def champions(monkeypatch, network):
    """What is asked for as a champion; `broken` has none."""
    asked = []

    def champion_file(study, tracking_uri, _folder):
        asked.append((study, tracking_uri))
        if study == "broken":
            raise UserError("no champion of 'broken'")
        return Path(network)

    stands_in = types.ModuleType("hpo.champion")
    stands_in.champion_file = champion_file
    monkeypatch.setitem(sys.modules, "hpo.champion", stands_in)
    return asked


def test_a_studys_champion_recognises(champions, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), picture((100, 80)))

    assert with_champion.main([str(tmp_path / "a.png")]) == 0
    assert with_champion.main([str(tmp_path / "a.png"), "--study", "demo", "--tracking-uri", "sqlite:///a.db"]) == 0

    assert champions == [("fer", None), ("demo", "sqlite:///a.db")]
    assert capsys.readouterr().out.count("face 1 of 1") == 2


@pytest.mark.usefixtures("champions")
def test_a_study_without_a_champion_is_one_line(capsys):
    assert with_champion.main(["a.png", "--study", "broken"]) == 2

    assert capsys.readouterr().err == "no champion of 'broken'\n"
