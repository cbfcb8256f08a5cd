"""Recognition on a video of 640×480 pixels: frames per second by stage, and of the whole pipeline.

python benchmarks/recognize.py --json recognize.json
python benchmarks/recognize.py --quick

The stages alone, one after another: decoding an MJPEG file (what cameras send), finding faces with the Haar cascade,
cutting them out with the network on all faces of a frame. The pipeline: the same three at a time, as the command runs
them, nothing drawn or written. In turns: figures are medians over the turns. Weights are random: speed does not depend
on them. `vs_serial` is the pipeline's rate over that of the stages one after another; `vs_slowest` over the slowest's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from model.exported import Classifier

CASES: tuple[tuple[str, int], ...] = (("compact", 1), ("compact", 4), ("published", 1))
STRIDES = {"compact": 2, "published": 1}
STAGES = ("decode", "detect", "network")


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    cases = CASES
    if options.quick:
        cases, options.turns, options.frames = CASES[:1], 3, min(options.frames, 60)
    rows = []
    for network, n_faces in cases:
        rows.append(_measured(network, n_faces, options.turns, options.frames))
        print(_line(rows[-1]), flush=True)
    if options.json:
        import cv2
        import torch

        from benchmarks.report import write

        threads = {"threads": torch.get_num_threads(), "opencv_threads": cv2.getNumThreads()}
        packages = ("torch", "opencv-python-headless", "numpy")
        write(options.json, rows, dict(_ratios(rows)), packages, **threads)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="one face, the compact network, three turns of 60 frames")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--turns", type=int, default=5, metavar="N")
    found.add_argument("--frames", type=int, default=150, metavar="N", help="of the video")
    return found


def _measured(network: str, n_faces: int, turns: int, n_frames: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "faces.avi"
        _write_video(video, n_faces, n_frames)
        runs, found = _runs(video, _classifier(network))
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(turns + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    rates[name].append(n_frames / (time.perf_counter() - began))
    serial = [1 / sum(1 / rates[stage][turn] for stage in STAGES) for turn in range(turns)]
    slowest = [min(rates[stage][turn] for stage in STAGES) for turn in range(turns)]
    return {
        "network": network,
        "faces": n_faces,
        "faces_found": found(),
        "frames_per_second": rates,
        "vs_serial": statistics.median(a / b for a, b in zip(rates["pipeline"], serial, strict=True)),
        "vs_slowest": statistics.median(a / b for a, b in zip(rates["pipeline"], slowest, strict=True)),
    }


def _runs(video: Path, classifier: "Classifier") -> tuple[dict[str, Callable[[], object]], Callable[[], float]]:
    """What is timed, by name; and faces found in a frame, on the average."""
    from model.detection import cut_faces, make_detector
    from model.frames import Frame, of_files
    from model.recognition import recognise

    detector, known = make_detector(), classifier.preparation
    frames = [item for item in of_files([video]) if isinstance(item, Frame)]
    boxes = [detector(frame.pixels) for frame in frames]

    def network() -> None:
        for frame, there in zip(frames, boxes, strict=True):
            classifier.probabilities(cut_faces(frame.pixels, there, known.image_size))

    def pipeline() -> None:
        names, size = known.class_names, known.image_size
        for _ in recognise(of_files([video]), detector, classifier, class_names=names, image_size=size):
            pass

    runs: dict[str, Callable[[], object]] = {
        "decode": lambda: sum(1 for _ in of_files([video])),
        "detect": lambda: [detector(frame.pixels) for frame in frames],
        "network": network,
        "pipeline": pipeline,
    }
    return runs, lambda: statistics.fmean(len(there) for there in boxes)


def _classifier(network: str) -> "Classifier":
    import torch

    from data.faces import EMOTIONS
    from model.exported import Classifier, Preparation
    from model.network import build_network

    weights, stride = torch.Generator().manual_seed(0), STRIDES[network]
    built = build_network(dropout=0, pool_stride=stride, image_size=48, weights=weights, masks=None)
    return Classifier(built, Preparation(stride, 48, 128.0, 64.0, EMOTIONS, {}))


def _write_video(path: Path, n_faces: int, n_frames: int) -> None:
    """Drawn faces of 144 pixels that drift over a softly noisy ground."""
    import cv2

    from data.synthetic import draw_face

    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.integers(60, 120, (480, 640), np.uint8), (0, 0), 4)
    faces = [cv2.resize(draw_face("happy", 48, random, 0.0), (144, 144)) for _ in range(n_faces)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (640, 480))
    for index in range(n_frames):
        picture = ground.copy()
        for number, face in enumerate(faces):
            x, y = 40 + 280 * (number % 2) + index % 100, 40 + 220 * (number // 2) + index % 40
            picture[y : y + 144, x : x + 144] = face
        writer.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
    writer.release()


def _line(row: dict[str, Any]) -> str:
    medians = {name: statistics.median(rates) for name, rates in row["frames_per_second"].items()}
    speeds = ", ".join(f"{name} {value:.1f}" for name, value in medians.items())
    return (
        f"{row['network']}, {row['faces_found']:.1f} faces a frame: frames/s: {speeds}; the pipeline is "
        f"{row['vs_serial']:.2f} of the stages in turn, {row['vs_slowest']:.2f} of the slowest"
    )


def _ratios(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        for name in ("vs_serial", "vs_slowest"):
            yield f"{row['network']}.f{row['faces']}.{name}", row[name]


if __name__ == "__main__":
    sys.exit(main())
