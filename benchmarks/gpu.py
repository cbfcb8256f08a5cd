"""Training on a CUDA device: images per second, what a trial's beginning costs, whether the fast path learns as well.

python benchmarks/gpu.py --data fer2013.npz --json gpu.json
python benchmarks/gpu.py --quick

Needs no optuna and no mlflow; triton, which a CUDA build of torch brings, for the fast path. Every figure stands beside
the plain path's, PyTorch's own operators one after another, in the same run. Without a GPU `--quick` runs that alone.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.limits import limits, work  # noqa: E402
from benchmarks.report import write  # noqa: E402
from data.faces import EMOTIONS, Faces  # noqa: E402
from model.device import Compute, choose  # noqa: E402
from model.hyperparameters import Hyperparameters  # noqa: E402
from model.network import build_network  # noqa: E402
from model.optimizers import OPTIMIZERS  # noqa: E402
from model.steps import make_steps  # noqa: E402
from model.trainer import FaceTrainer, never  # noqa: E402

N_ROWS = 28_709
"""FER2013's training rows."""
N_STEPS = 60
"""Steps that are timed at once."""


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    on_gpu = torch.cuda.is_available() and not options.quick
    faces = _faces(options.data, n_drawn=20_000 if on_gpu else 300, size=48 if on_gpu else 24)
    began = time.perf_counter()
    rows = [*_speeds(faces, on_gpu=on_gpu)]
    print(_table(rows))
    starts = _starts(faces, n_trials=options.trials if on_gpu else 4)
    print(f"a warm trial's first step after {starts['warm_seconds']:.3f} s (median of {starts['n']}); memory grew by "
          f"{starts['growth_mib']:.1f} MiB over the last half of them")  # fmt: skip
    packed = dict(_packed(faces, on_gpu=on_gpu))
    for case, rates in packed.items():
        print(f"{case}: " + ", ".join(f"{n} at a time {rate:,.0f} images/s" for n, rate in rates.items()))
    replayed = dict(_replayed(faces))
    print("weights after 40 steps, captured and one by one, differ by at most: "
          + ", ".join(f"{name} {found:.1e}" for name, found in replayed.items()))  # fmt: skip
    learnt = list(_learnt(faces, seeds=options.seeds if on_gpu else 1, epochs=options.epochs if on_gpu else 1))
    for row in learnt:
        values = " ".join(f"{v:.4f}" for v in row["val_accuracy"])
        print(f"{row['path']:9s} best val_accuracy {statistics.mean(row['val_accuracy']):.4f} ({values})")
    print(f"in all {time.perf_counter() - began:.0f} s")
    if options.json:
        _write(options.json, rows, starts, packed, replayed, learnt)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="toy size, on the CPU where there is no GPU")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--data", type=Path, metavar="FILE", help="an npz of pixels, emotion and usage; random without")
    found.add_argument("--trials", type=int, default=60, metavar="N", help="short trials, one after another")
    found.add_argument("--seeds", type=int, default=3, metavar="N")
    found.add_argument("--epochs", type=int, default=12, metavar="N", help="of the comparison of what is learnt")
    return found


def _faces(path: Path | None, *, n_drawn: int, size: int) -> Faces:
    """The paper's split of FER2013's training rows, or random pixels."""
    if path is None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (n_drawn, size, size), dtype=np.uint8)
        labels = rng.integers(0, len(EMOTIONS), n_drawn, dtype=np.uint8)
    else:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["pixels"][:N_ROWS].reshape(-1, 48, 48), file["emotion"][:N_ROWS].astype(np.uint8)
    cut = len(labels) * 24_000 // N_ROWS
    splits = {"train": np.arange(cut), "validation": np.arange(cut, len(labels))}
    source = str(path or "random pixels")
    return Faces(
        images=images, labels=labels, splits=splits, class_names=EMOTIONS, digest=source, name="faces", source=source,
        split_name="paper",
    )  # fmt: skip


def _plain(trainer: FaceTrainer) -> Compute:
    return replace(trainer.compute, captures=False)


def _speeds(faces: Faces, *, on_gpu: bool) -> Iterator[dict[str, Any]]:
    """Images per second of each path, by network, batch size and optimizer."""
    cases = [("compact", 2, b, "adam") for b in (32, 128, 512)]
    cases += [("compact", 2, 128, name) for name in OPTIMIZERS if name != "adam"]
    cases += [("published", 1, b, "adam") for b in (32, 128)] + [("published", 1, 128, "sgd")]
    if not on_gpu:
        cases = [("compact", 2, 32, "adam")]
    limit = limits(choose())
    for network, stride, batch, optimizer in cases:
        trainer = FaceTrainer(faces, pool_stride=stride)  # type: ignore[arg-type]
        params = Hyperparameters(
            learning_rate=OPTIMIZERS[optimizer].reference_rate, batch_size=batch, epochs=200, dropout=0.2,
            optimizer=optimizer,
        )  # fmt: skip
        row: dict[str, Any] = {"network": network, "batch": batch, "optimizer": optimizer}
        row["ours"], row["spread"] = _rate(trainer, params, trainer.compute)
        row["plain"], _ = _rate(trainer, params, _plain(trainer))
        precision = trainer.compute.autocast or torch.float32
        of = work(stride, faces.image_size, precision.itemsize)
        row["of_arithmetic_limit"], row["of_bandwidth_limit"] = limit.shares(of, batch, row["ours"])
        if optimizer == "adam" and network == "compact":
            row["script"] = _script(faces, params, trainer.compute.device)
        yield row


def _rate(trainer: FaceTrainer, params: Hyperparameters, compute: Compute) -> tuple[float, list[float]]:
    """Images per second: the median of five runs, and all of them."""
    trainer.compute = compute
    state = trainer._fresh(params, seed=0)
    steps = make_steps(state, trainer._training, params, compute)
    n_steps = N_STEPS if compute.device.type == "cuda" else 2
    n_images = min(len(trainer._training.labels) // params.batch_size, n_steps) * params.batch_size
    order = torch.arange(n_images)
    steps.epoch(order[: 3 * params.batch_size], never)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        steps.epoch(order, never)  # reads the device at its end
        rates.append(n_images / (time.perf_counter() - began))
    return statistics.median(rates), rates


def _script(faces: Faces, params: Hyperparameters, device: torch.device) -> float:
    """Images per second of what users write: a DataLoader of eight processes, float32, `.item()` every step."""
    from torch.utils.data import DataLoader, TensorDataset

    images = torch.from_numpy(faces.images[faces.splits["train"]]).unsqueeze(1).float().div(255)
    labels = torch.from_numpy(faces.labels[faces.splits["train"]].astype(np.int64))
    workers = 8 if device.type == "cuda" else 0
    loader = DataLoader(
        TensorDataset(images, labels), params.batch_size, shuffle=True, num_workers=workers, pin_memory=workers > 0,
        drop_last=True,
    )  # fmt: skip
    weights = torch.Generator().manual_seed(0)
    network = build_network(
        dropout=params.dropout, pool_stride=2, image_size=faces.image_size, weights=weights, masks=None
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    began, seen, seconds = time.perf_counter(), 0, 1.0
    for step, (x, y) in enumerate(loader):
        if step == 5:
            began, seen = time.perf_counter(), 0
        optimizer.zero_grad()
        logits = network(x.to(device))
        loss = torch.nn.functional.cross_entropy(logits, y.to(device))
        loss.backward()
        optimizer.step()
        loss.item()
        seen += len(y)
        seconds = time.perf_counter() - began  # read here: the end of the loop joins eight processes
        if step >= 5 and seconds > 2:
            break
    return seen / seconds


def _starts(faces: Faces, *, n_trials: int) -> dict[str, Any]:
    """Many trials of one step each, batch sizes and optimizers mixed: when each had made its step, and the memory."""
    trainer = FaceTrainer(faces, pool_stride=2)
    on_gpu = trainer.compute.device.type == "cuda"
    seconds, reserved = [], []
    names = list(OPTIMIZERS)
    for number in range(n_trials):
        params = Hyperparameters(
            learning_rate=1e-3, batch_size=(32, 64, 128)[number % 3], epochs=50, dropout=0.1 * (number % 5),
            optimizer=names[number % len(names)],
        )  # fmt: skip
        began = time.perf_counter()
        state = trainer._fresh(params, seed=number)
        steps = make_steps(state, trainer._training, params, trainer.compute)
        steps.epoch(torch.arange(params.batch_size), never)
        seconds.append(time.perf_counter() - began)
        del state, steps
        gc.collect()
        reserved.append(torch.cuda.memory_reserved() / 2**20 if on_gpu else 0.0)
    half = n_trials // 2
    return {
        "n": n_trials - half,
        "warm_seconds": statistics.median(seconds[half:]),
        "growth_mib": reserved[-1] - reserved[half],
        "seconds": seconds,
    }


def _packed(faces: Faces, *, on_gpu: bool) -> Iterator[tuple[str, dict[int, float]]]:
    """What trials at a time train together, by network and batch size: images per second."""
    for network, stride, batch in (("compact", 2, 32), ("compact", 2, 128), ("compact", 2, 512), ("published", 1, 128)):
        trainer = FaceTrainer(faces, pool_stride=stride, threads=None if on_gpu else 4)  # type: ignore[arg-type]
        params = {"learning_rate": 3e-4, "batch_size": batch, "epochs": 200, "dropout": 0.2, "optimizer": "adam"}
        yield f"{network}.b{batch}", dict(trainer.side_by_side([params]))
        if not on_gpu:
            return


def _replayed(faces: Faces) -> Iterator[tuple[str, float]]:
    """By optimizer: the largest difference, over the largest weight, that a graph makes to steps run one by one."""
    trainer = FaceTrainer(faces, pool_stride=2)
    n_images = len(trainer._training.labels)
    for name, optimizer in OPTIMIZERS.items():
        params = Hyperparameters(
            learning_rate=optimizer.reference_rate, batch_size=min(64, n_images // 3), epochs=200, dropout=0.2,
            optimizer=name,
        )  # fmt: skip
        trained = []
        for as_graph in (True, False):
            state = trainer._fresh(params, seed=0)
            steps: Any = make_steps(state, trainer._training, params, trainer.compute)
            if not as_graph and trainer.compute.captures:
                steps._graph = None
            for _ in range(2):  # the last batch of each is a part of one
                steps.epoch(torch.arange(min(20 * params.batch_size + 7, n_images)), never)
            trained.append([weight.detach().clone() for weight in state.network.parameters()])
        apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*trained, strict=True))
        yield name, apart


def _learnt(faces: Faces, *, seeds: int, epochs: int) -> Iterator[dict[str, Any]]:
    """The best validation accuracy by path, of the same configuration and seeds."""
    trainer = FaceTrainer(faces, pool_stride=2, checkpoint_seconds=1e9)
    params = {"learning_rate": 3e-4, "batch_size": 128 if epochs > 1 else 32, "epochs": epochs, "dropout": 0.2}
    paths = {
        "ours": trainer.compute,
        "plain": _plain(trainer),
        "float32": replace(_plain(trainer), autocast=None),
    }
    for path, compute in paths.items():
        trainer.compute = compute
        torch.backends.cudnn.allow_tf32 = path != "float32"  # on by default: 10 bits are not float32's
        found, seconds = [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                history = list(trainer.train({**params, "optimizer": "adam"}, seed=seed, workdir=Path(folder)))
            found.append(max(m["val_accuracy"] for m in history))
            seconds.append(statistics.median(m["epoch_seconds"] for m in history))
        yield {"path": path, "val_accuracy": found, "epoch_seconds": statistics.median(seconds)}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | batch | optimizer | images/s | over plain | over a script, 8 loaders | of a product | of a copy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        script = f"{row['ours'] / row['script']:.1f}" if "script" in row else "-"
        cells = [row["network"], row["batch"], row["optimizer"], f"{row['ours']:,.0f}"]
        shares = f"{row['of_arithmetic_limit']:.2f} | {row['of_bandwidth_limit']:.2f}"
        lines.append(f"| {' | '.join(map(str, cells))} | {row['ours'] / row['plain']:.2f} | {script} | {shares} |")
    return "\n".join(lines)


def _write(
    path: Path,
    rows: list[dict[str, Any]],
    starts: dict[str, Any],
    packed: dict[str, dict[int, float]],
    replayed: dict[str, float],
    learnt: list[dict[str, Any]],
) -> None:
    ratios = {f"{r['network']}.b{r['batch']}.{r['optimizer']}.vs_plain": r["ours"] / r["plain"] for r in rows}
    ratios |= {f"{case}.packed": max(rates.values()) / rates[1] for case, rates in packed.items() if rates}
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    write(
        path,
        {"speeds": rows, "starts": starts, "packed": packed, "replayed": replayed, "learnt": learnt},
        ratios,
        ("torch", "triton"),
        card=card,
    )


if __name__ == "__main__":
    sys.exit(main())
