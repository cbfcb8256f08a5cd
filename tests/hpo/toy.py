"""A study that trains nothing, quickly, and witnesses each epoch outside the product."""

import time
from pathlib import Path

SOURCE = """
import json, os, time
from pathlib import Path
from hpo.spec import StudySpec

WITNESS = Path({witness!r})


def suggest(trial):
    return {{"x": trial.suggest_float("x", 0.0, 1.0), "kind": trial.suggest_categorical("kind", ["a", "b"])}}


class Toy:
    def train(self, params, *, seed, workdir):
        record = Path(workdir) / "epochs.jsonl"
        done = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        yield from done
        for epoch in range(len(done), {epochs}):
            time.sleep({pause})
            {inject}
            metrics = {{"score": 1.0 - (params["x"] - 0.3) ** 2 - 1.0 / (epoch + 2)}}
            with WITNESS.open("a") as f:
                f.write(f"{{os.getpid()}} {{Path(workdir).name}} {{epoch}}\\n")
            with record.open("a") as f:
                f.write(json.dumps(metrics) + "\\n")
            yield metrics

    def evaluate(self, workdir, split):
        return {{"score": 0.5}}


STUDY = StudySpec(name="toy", suggest=suggest, prepare=lambda context: Toy(), metric="score", {fields})
"""


def write_toy(
    folder: Path, *, trials: int = 6, epochs: int = 4, pause: float = 0.0, inject: str = "pass", fields: str = ""
) -> Path:
    path = folder / "toy.py"
    witness = str(folder / "witness.txt")
    everything = f"n_trials={trials}, seed=7, {fields}"
    path.write_text(SOURCE.format(witness=witness, epochs=epochs, pause=pause, inject=inject, fields=everything))
    return path


def witnessed(folder: Path) -> list[tuple[str, str]]:
    """(trial, epoch) of every epoch that was trained, in order."""
    lines = (folder / "witness.txt").read_text().splitlines()
    return [(line.split()[1], line.split()[2]) for line in lines]


def wait_for_epochs(folder: Path, n: int, within: float = 120.0) -> None:
    """Wait until so many epochs were trained in all."""
    deadline = time.monotonic() + within
    while not ((folder / "witness.txt").exists() and len(witnessed(folder)) >= n):
        assert time.monotonic() < deadline, f"{n} epochs took longer than {within:g} s"
        time.sleep(0.05)
