"""Records learning curves of this project's network: a table of configurations, to measure a search on.

FER2013_DIR=… python benchmarks/record_curves.py --out faces_24.npz --configurations 200 --epochs 20 --seeds 2
python benchmarks/record_curves.py --quick

Without a GPU: faces of 24×24, 3,000 of them, the compact network. Resumable by (configuration, seed): what is trained
stands beside the file. `benchmarks/search.py` takes a table that is named `faces_*.npz` and lies in HPO_CURVES_DIR.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from data.faces import Faces

SPACE_SEED = 20_130_701
N_IMAGES = 3_000


def main() -> int:
    """Train what is missing, and write the table."""
    options = _parser().parse_args()
    if options.quick:
        options.configurations, options.epochs, options.seeds = 3, 2, 1
    if options.out is None:
        options.out = Path(tempfile.mkdtemp()) / "faces_quick.npz"
    configurations = _configurations(options.configurations, options.epochs)
    kept = options.out.with_suffix(".jsonl")
    done = {(row["configuration"], row["seed"]): row for row in _rows(kept)}
    wanted = [(c, s) for s in range(options.seeds) for c in range(options.configurations)]
    missing = [key for key in wanted if key not in done]
    if missing:
        _train(missing, configurations, options, kept, done)
    _write(
        options.out, configurations, [[done[c, s] for s in range(options.seeds)] for c in range(len(configurations))]
    )
    print(f"{options.out}: {len(configurations)} configurations x {options.epochs} epochs x {options.seeds} seeds")
    if options.json:
        from benchmarks.report import write

        write(options.json, list(done.values()), {}, ("torch",))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="three configurations, two epochs, drawn faces")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--out", type=Path, metavar="FILE", help="the table, an npz")
    found.add_argument("--configurations", type=int, default=200, metavar="N")
    found.add_argument("--epochs", type=int, default=20, metavar="R")
    found.add_argument("--seeds", type=int, default=2, metavar="S")
    found.add_argument("--device", metavar="D")
    found.add_argument("--processes", type=int, default=1, metavar="N", help="at a time; they share the device")
    return found


def _configurations(n: int, epochs: int) -> list[dict[str, Any]]:
    """The first `n` of a fixed sequence in the space of the studies."""
    import numpy as np

    from hpo.draws import Draws
    from studies.faces import suggest_faces

    draws = Draws(lambda t: {**suggest_faces(t, batch_sizes=(32, 64, 128, 256), epochs=(epochs, epochs))})
    return [{**d.params, **d.suggested} for d in draws.anywhere(np.random.default_rng(SPACE_SEED), n)]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # cut off by a kill


def _train(
    missing: list[tuple[int, int]],
    configurations: list[dict[str, Any]],
    options: argparse.Namespace,
    kept: Path,
    done: dict[tuple[int, int], dict[str, Any]],
) -> None:
    from multiprocessing import get_context

    from rich.progress import track

    jobs = [(c, s, {k: v for k, v in configurations[c].items() if k != "learning_rate_scale"}) for c, s in missing]
    with (
        kept.open("a") as out,
        get_context("spawn").Pool(options.processes, _begin, (options.quick, options.device)) as pool,
    ):
        for row in track(pool.imap_unordered(_recorded, jobs), "recording", total=len(jobs)):
            done[row["configuration"], row["seed"]] = row
            out.write(json.dumps(row) + "\n")
            out.flush()


_state: dict[str, Any] = {}
"""A process's trainer: made once, not for every configuration."""


def _begin(quick: bool, device: str | None) -> None:  # noqa: FBT001  a pool passes it by place
    from model.trainer import FaceTrainer

    _state["trainer"] = FaceTrainer(_faces(quick=quick), device=device, pool_stride=2, checkpoint_seconds=1e9)


def _recorded(job: tuple[int, int, dict[str, Any]]) -> dict[str, Any]:
    configuration, seed, params = job
    with tempfile.TemporaryDirectory() as folder:
        epochs = list(_state["trainer"].train(params, seed=seed, workdir=Path(folder)))
    return {
        "configuration": configuration,
        "seed": seed,
        "val_accuracy": [m["val_accuracy"] for m in epochs],
        "epoch_seconds": [m["epoch_seconds"] for m in epochs],
    }


def _faces(*, quick: bool) -> "Faces":
    if quick or not os.environ.get("FER2013_DIR"):
        from data.synthetic import synthetic_faces

        return synthetic_faces(n_train=300, n_validation=100, n_test=0, image_size=24)
    from dataclasses import replace

    import numpy as np

    from data import fer2013

    faces = fer2013.load(fer2013.locate(None), split="paper").limited(N_IMAGES)
    n, size, _ = faces.images.shape
    halved = np.empty((n, size // 2, size // 2), np.uint8)
    for start in range(0, n, 4_096):  # means of 2×2 pixels
        block = faces.images[start : start + 4_096].reshape(-1, size // 2, 2, size // 2, 2)
        halved[start : start + 4_096] = block.mean((2, 4)).round().astype(np.uint8)
    return replace(faces, images=halved)


def _write(out: Path, configurations: list[dict[str, Any]], rows: list[list[dict[str, Any]]]) -> None:
    import numpy as np

    longest = max(len(r["val_accuracy"]) for seeds in rows for r in seeds)

    def padded(name: str) -> Any:
        values = np.full((len(rows), len(rows[0]), longest), np.nan, np.float32)
        for c, seeds in enumerate(rows):
            for s, row in enumerate(seeds):
                values[c, s, : len(row[name])] = row[name]
        return values

    accuracy = padded("val_accuracy")
    columns = ("learning_rate_scale", "batch_size", "dropout")
    np.savez_compressed(
        out,
        names=np.array(columns),
        log_names=np.array(columns[:2]),
        hyperparameters=np.array([[c[name] for name in columns] for c in configurations], float),
        optimizer=np.array([c["optimizer"] for c in configurations]),
        val_accuracy=accuracy[:, 0],
        mean_val_accuracy=accuracy.mean(1),
        epoch_seconds=padded("epoch_seconds").mean(1),
    )


if __name__ == "__main__":
    sys.exit(main())
