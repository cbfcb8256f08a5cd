"""A training step beside the script that a user would write, and beside its own arithmetic: images per second.

python benchmarks/train_step.py --json train_step.json
python benchmarks/train_step.py --quick

The script: float32, contiguous, torch's own layers in the paper's order, `.item()` every step, its images from a folder
of PNG files or from a csv, through a DataLoader, in a process of its own, as a user would start it: ours changes how
its process keeps memory. The arithmetic: our step on one batch that is there already, again and
again, with no loop around it. All in the same run, in turns: ratios are medians over the turns. The limits: our
step's arithmetic at the rate of a large matrix product, and the bytes it must move at that of a large copy. With
`--processes N` it measures instead what N trainings at a time, on a share of the cores each, do together, beside one on
all of them.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import torch
    from torch.utils.data import Dataset

    from data.faces import Faces
    from model.hyperparameters import Hyperparameters

NETWORKS = {"compact": 2, "published": 1}


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    networks = NETWORKS if options.network is None else (options.network,)
    cases = [(network, batch) for network in networks for batch in (32, 128, 512)]
    if options.processes:
        return _side_by_side(options.processes, options.turns)
    if options.quick:
        cases, options.turns = cases[:1], 3
    rows = []
    for network, batch in cases:
        n_steps = 1 if network == "published" else max(2, options.images // batch)
        turns = min(options.turns, 3) if network == "published" else options.turns  # its steps take up to a minute
        rows.append(_measured(network, batch, turns, n_steps=n_steps))
        print(_line(rows[-1]), flush=True)
    if options.json:
        import torch

        from benchmarks.report import write

        write(options.json, rows, dict(_ratios(rows)), ("torch",), threads=torch.get_num_threads())
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="the compact network at batch 32, three turns")
    found.add_argument(
        "--network", choices=NETWORKS, help="this one alone: a step of the published takes seconds on a CPU"
    )
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--processes", type=int, metavar="N", help="trainings at a time, beside one on all cores")
    found.add_argument("--turns", type=int, default=7, metavar="N")
    found.add_argument("--images", type=int, default=512, metavar="N", help="timed together, in two steps at least")
    return found


def _measured(network: str, batch: int, turns: int, *, n_steps: int) -> dict[str, Any]:
    import torch

    from benchmarks.limits import limits, work
    from data.synthetic import synthetic_faces
    from model.device import choose
    from model.hyperparameters import Hyperparameters

    faces = synthetic_faces(n_train=batch * n_steps, n_validation=7, n_test=0, image_size=48)
    params = Hyperparameters(learning_rate=3e-4, batch_size=batch, epochs=100, dropout=0.2, optimizer="adam")
    with (
        tempfile.TemporaryDirectory() as place,
        _beside("folder", faces, params, NETWORKS[network], Path(place)) as folder,
        _beside("csv", faces, params, NETWORKS[network], Path(place)) as csv,
    ):
        runs = {
            "ours": _ours(faces, params, NETWORKS[network]),
            "arithmetic": _arithmetic(faces, params, NETWORKS[network]),
            "folder": folder,
            "csv": csv,
        }
        for run in runs.values():
            run()
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(turns):
            for name, run in list(runs.items())[:: 1 if turn % 2 else -1]:  # what runs before another may slow it
                began = time.perf_counter()
                run()
                rates[name].append(batch * n_steps / (time.perf_counter() - began))
    plain = [max(pair) for pair in zip(rates["folder"], rates["csv"], strict=True)]
    ratio = {
        "vs_plain": statistics.median(a / b for a, b in zip(rates["ours"], plain, strict=True)),
        "vs_arithmetic": statistics.median(a / b for a, b in zip(rates["ours"], rates["arithmetic"], strict=True)),
    }
    compute = choose("cpu")
    of = work(NETWORKS[network], faces.image_size, torch.float32.itemsize)
    shares = limits(compute).shares(of, batch, statistics.median(rates["ours"]))
    ratio |= {"of_arithmetic_limit": shares[0], "of_bandwidth_limit": shares[1]}
    return {"network": network, "batch": batch, "images_per_second": rates, **ratio}


def _side_by_side(n_processes: int, turns: int) -> int:
    """Print images per second of trainings side by side over those of one on all cores."""
    from multiprocessing import get_context

    cores = os.cpu_count() or 1
    for batch in (32, 128):
        ratios = []
        for _ in range(turns):
            rates = {}
            for n in (1, n_processes):
                context = get_context("spawn")
                barrier, results = context.Barrier(n), context.SimpleQueue()
                arguments = (batch, max(1, cores // n), barrier, results)
                processes = [context.Process(target=_train_alone, args=arguments) for _ in range(n)]
                for process in processes:
                    process.start()
                rates[n] = sum(results.get() for _ in processes)
                for process in processes:
                    process.join()
            ratios.append(rates[n_processes] / rates[1])
        print(f"compact at batch {batch}: {n_processes} side by side {statistics.median(ratios):.2f} of one alone")
    return 0


def _train_alone(batch: int, threads: int, barrier: Any, results: Any) -> None:
    """In a process of its own: images per second over five seconds, begun when all are ready."""
    import torch

    from data.synthetic import synthetic_faces
    from model.hyperparameters import Hyperparameters

    torch.set_num_threads(threads)
    faces = synthetic_faces(n_train=2 * batch, n_validation=7, n_test=0, image_size=48)
    params = Hyperparameters(learning_rate=3e-4, batch_size=batch, epochs=100, dropout=0.2, optimizer="adam")
    run = _ours(faces, params, NETWORKS["compact"])
    run()
    barrier.wait()
    began, n_images = time.perf_counter(), 0
    while time.perf_counter() - began < 5:
        run()
        n_images += 2 * batch
    results.put(n_images / (time.perf_counter() - began))


def _ours(faces: "Faces", params: "Hyperparameters", stride: int) -> Callable[[], None]:
    import torch

    from model.steps import make_steps
    from model.trainer import FaceTrainer, never

    trainer = FaceTrainer(faces, device="cpu", pool_stride=stride)  # type: ignore[arg-type]
    steps = make_steps(trainer._fresh(params, seed=0), trainer._training, params, trainer.compute)
    n_images = len(faces.splits["train"])

    def run() -> None:
        steps.epoch(torch.randperm(n_images), never)

    return run


def _arithmetic(faces: "Faces", params: "Hyperparameters", stride: int) -> Callable[[], None]:
    import torch

    from model.steps import step
    from model.trainer import FaceTrainer

    trainer = FaceTrainer(faces, device="cpu", pool_stride=stride)  # type: ignore[arg-type]
    state = trainer._fresh(params, seed=0)
    state.network.train()
    batch = trainer._training.batch(torch.arange(params.batch_size), state.masks)
    n_steps = len(faces.splits["train"]) // params.batch_size

    def run() -> None:
        for _ in range(n_steps):
            step(state.network, state.optimizer, batch, trainer.compute)

    return run


@contextmanager
def _beside(
    images: str, faces: "Faces", params: "Hyperparameters", stride: int, place: Path
) -> Iterator[Callable[[], None]]:
    """The script in a process of its own: what runs an epoch there, and waits for its end."""
    from multiprocessing import get_context

    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_script, args=(there, images, faces, params, stride, place), daemon=True)
    process.start()
    there.close()  # so that its end is known here

    def run() -> None:
        here.send("an epoch")
        here.recv()

    try:
        yield run
    finally:
        process.kill()
        process.join()


def _script(
    connection: "Connection", images: str, faces: "Faces", params: "Hyperparameters", stride: int, place: Path
) -> None:
    from torch.utils.data import DataLoader

    from benchmarks.plain import make_optimizer, network, train_epoch

    data = _folder(faces, place) if images == "folder" else _csv(faces, place)
    model = network(stride, params.dropout)
    optimizer = make_optimizer(params.optimizer, model, params.learning_rate)
    loader: DataLoader[Any] = DataLoader(data, params.batch_size, shuffle=True)
    while connection.recv():
        train_epoch(model, loader, optimizer)
        connection.send("done")


def _folder(faces: "Faces", place: Path) -> "Dataset[tuple[torch.Tensor, int]]":
    from benchmarks.plain import ImageFolder, write_images

    rows = faces.splits["train"]
    write_images(faces.images[rows], faces.labels[rows], place / "train")
    return ImageFolder(place / "train")


def _csv(faces: "Faces", place: Path) -> "Dataset[tuple[torch.Tensor, int]]":
    """Parses a row's pixels whenever it is asked for, as the field's FER2013 data sets do."""
    import pandas as pd
    import torch
    from torch.utils.data import Dataset

    rows = faces.splits["train"]
    text = [" ".join(map(str, faces.images[row].ravel())) for row in rows]
    pd.DataFrame({"emotion": faces.labels[rows], "pixels": text}).to_csv(place / "fer2013.csv", index=False)
    table = pd.read_csv(place / "fer2013.csv")

    class Table(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(table)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            row = table.iloc[index]
            pixels = np.array(row["pixels"].split(), np.float32).reshape(1, 48, 48) / 255
            return (torch.from_numpy(pixels) - 0.5) / 0.25, int(row["emotion"])

    return Table()


def _line(row: dict[str, Any]) -> str:
    medians = {name: statistics.median(rates) for name, rates in row["images_per_second"].items()}
    speeds = ", ".join(f"{name} {value:.1f}" for name, value in medians.items())
    return (
        f"{row['network']} at batch {row['batch']}: {row['vs_plain']:.2f} of the script, "
        f"{row['vs_arithmetic']:.3f} of the arithmetic; {row['of_arithmetic_limit']:.2f} of a matrix product's rate, "
        f"{row['of_bandwidth_limit']:.2f} of a copy's; images/s: {speeds}"
    )


def _ratios(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        for name in ("vs_plain", "vs_arithmetic"):
            yield f"{row['network']}.b{row['batch']}.{name}", row[name]


if __name__ == "__main__":
    sys.exit(main())
