"""Whether the fast steps learn as well as plain ones: validation accuracy of both, on the same images, over some seeds.

FER2013_DIR=... python benchmarks/accuracy.py --json accuracy.json

Ours as a study trains it here (on a CPU: channels-last, pooled before ReLU, dropout masks of a quarter of the draws,
an optimizer in one pass) beside torch's own layers in the paper's order, contiguous, from PNG files
(`benchmarks/plain.py`).
Printed: mean and spread over the seeds of each, and the difference of means in standard errors. On a GPU: `gpu.py`.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PARAMS = {"learning_rate": 3e-4, "batch_size": 64, "dropout": 0.2, "optimizer": "adam"}


def main() -> int:
    """Train, print, and write what was found."""
    options = _parser().parse_args()
    from data import fer2013
    from data.synthetic import synthetic_faces

    if options.quick:
        options.seeds, options.epochs = 2, 1
        faces = synthetic_faces(n_train=300, n_validation=140, n_test=0, image_size=24)
    else:
        faces = fer2013.load(fer2013.locate(options.data), split="paper").limited(options.images)
    found = {"ours": _ours(faces, options), "plain": _plain(faces, options)}
    for name, values in found.items():
        spread = statistics.stdev(values)
        print(f"{name:6s} best val_accuracy {statistics.mean(values):.4f}, std {spread:.4f} ({_words(values)})")
    difference = statistics.mean(found["ours"]) - statistics.mean(found["plain"])
    error = sum(statistics.variance(values) / len(values) for values in found.values()) ** 0.5
    print(f"ours - plain: {difference:+.4f}, {difference / error if error else 0.0:+.2f} standard errors")
    if options.json:
        from benchmarks.report import write

        ratios = {"ours_minus_plain_in_standard_errors": difference / error if error else 0.0}
        write(options.json, found, ratios, ("torch",), seeds=options.seeds, epochs=options.epochs)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="drawn faces, two seeds, one epoch")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--data", metavar="PATH", help="FER2013 [FER2013_DIR, else ./datasets]")
    found.add_argument("--images", type=int, default=3_000, metavar="N", help="training images")
    found.add_argument("--seeds", type=int, default=4, metavar="N")
    found.add_argument("--epochs", type=int, default=4, metavar="N")
    return found


def _ours(faces: Any, options: argparse.Namespace) -> list[float]:
    from model.trainer import FaceTrainer

    trainer = FaceTrainer(faces, device="cpu", pool_stride=2, checkpoint_seconds=1e9)
    params = {**PARAMS, "epochs": options.epochs}
    best = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            history = list(trainer.train(params, seed=seed, workdir=Path(folder)))
        best.append(max(metrics["val_accuracy"] for metrics in history))
    return best


def _plain(faces: Any, options: argparse.Namespace) -> list[float]:
    import torch

    from benchmarks.plain import epochs, write_images

    best = []
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "validation"):
            rows = faces.splits[split]
            write_images(faces.images[rows], faces.labels[rows], Path(folder) / split)
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            params = {**PARAMS, "epochs": options.epochs}
            history = list(epochs(Path(folder), params, faces.image_size, Path(folder) / "weights.pt"))
            best.append(max(metrics["val_accuracy"] for metrics in history))
    return best


def _words(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
