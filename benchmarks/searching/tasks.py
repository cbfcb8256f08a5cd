"""What a search is measured on: recorded learning curves, or ones in closed form where none are at hand.

Values are signed so that more is better.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from hpo.space import walk

Floats = NDArray[np.float64]

LCBENCH_DEVELOPMENT = (
    "3945", "7593", "34539", "126026", "167104", "167152", "167168", "167184", "167190",
    "167201", "168330", "168335", "168868", "168910", "189354", "189865", "189906",
)  # fmt: skip
LCBENCH_HELD_OUT = (
    "126025", "126029", "146212", "167083", "167149", "167161", "167181", "167185", "167200",
    "168329", "168331", "168908", "189862", "189866", "189873", "189905", "189908", "189909",
)  # fmt: skip
"""What no setting was chosen on."""
N_REFERENCE = 4_000
"""Configurations among which the best of a surrogate's task is looked for."""


@dataclass(frozen=True)
class Curve:
    """What a configuration comes to after 1 to R epochs.

    Attributes:
        seen: float64 [R], what a search sees; NaN where training diverged.
        scored: float64 [R], what its choice is scored by: the noise-free or the test value.
        seconds: float64 [R], what each epoch takes; None where that was not recorded.
    """

    seen: Floats
    scored: Floats
    seconds: Floats | None = None

    def __len__(self) -> int:
        return len(self.seen)


@dataclass(frozen=True)
class Task:
    """A search problem.

    Attributes:
        curve: a configuration as suggested, and the rows that are used up, to what it is taken for (the configuration
            itself, or the nearest recorded one), its row or None, and its curve.
        snapped: what each of many would be taken for.
        best: the best scored value known.
        worst: the untrained network's.
    """

    family: str
    name: str
    max_epochs: int
    suggest: Callable[[Any], dict[str, Any]]
    curve: Callable[[Mapping[str, Any], set[int]], tuple[dict[str, Any], int | None, Curve]]
    best: float
    worst: float
    snapped: Callable[[Sequence[Mapping[str, Any]], set[int]], Sequence[Mapping[str, Any]]] = lambda them, _used: them

    def regret(self, scored: float) -> float:
        """The part of the way from untrained to best that is missing, in [0, 1] or a little below."""
        return min(1.0, (self.best - scored) / (self.best - self.worst))


def distributions(task: Task) -> Mapping[str, BaseDistribution]:
    """What a task's space is made of, in the order in which it is suggested."""
    return next(iter(walk(task.suggest))).distributions


def tasks_in(folder: Path | None, *, held_out: bool = False) -> list[Task]:
    """Every task that the folder has curves of; the closed-form ones without a folder.

    Args:
        folder: of recorded curves.
        held_out: those LCBench tasks that no setting was chosen on, instead of the others.
    """
    if folder is None:
        return [closed_form(kind) for kind in ("smooth", "flat", "crossing")]
    found = [taskset(path) for path in sorted(folder.glob("taskset_*.npz"))]
    if (folder / "lcbench.onnx").exists():
        found += lcbench(folder, LCBENCH_HELD_OUT if held_out else LCBENCH_DEVELOPMENT)
    found += [recorded(path) for path in sorted(folder.glob("faces_*.npz"))]
    return found


class _Column:
    """A hyperparameter of a table: numbers on their range, on a log scale perhaps, or names."""

    def __init__(self, values: Any, *, log: bool = False) -> None:
        self.values, self.log = values, log
        self.names = [str(v) for v in np.unique(values)] if values.dtype.kind in "US" else None
        self.low, self.high = (0.0, 0.0) if self.names else (float(values.min()), float(values.max()))

    def places(self, values: Any) -> Floats:
        """Where values lie: float64 [n, k] of [n]; names lie 1 apart."""
        if self.names is not None:
            return np.column_stack([(values == name) / math.sqrt(2) for name in self.names])
        numbers = np.asarray(values, float)
        if self.log:
            return np.asarray(np.log(numbers / self.low) / math.log(self.high / self.low))[:, None]
        return np.asarray((numbers - self.low) / (self.high - self.low))[:, None]

    def suggest(self, trial: Any, name: str) -> Any:
        if self.names is not None:
            return trial.suggest_categorical(name, self.names)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


def _table_task(
    family: str, name: str, columns: Mapping[str, _Column], seen: Floats, scored: Floats, worst: float
) -> Task:
    """A task among recorded rows: what is suggested is taken for the nearest row that is not used up."""
    points = np.column_stack([column.places(column.values) for column in columns.values()])
    params = [{n: column.values[row].item() for n, column in columns.items()} for row in range(len(points))]

    def suggest(trial: Any) -> dict[str, Any]:
        return {n: column.suggest(trial, n) for n, column in columns.items()}

    def nearest(suggested: Sequence[Mapping[str, Any]], used: set[int]) -> NDArray[np.int64]:
        wanted = np.column_stack([c.places(np.array([s[n] for s in suggested])) for n, c in columns.items()])
        distances = np.square(wanted).sum(1)[:, None] + np.square(points).sum(1)[None, :] - 2 * wanted @ points.T
        distances[:, list(used)] = np.inf
        return np.asarray(distances.argmin(1))

    def curve(suggested: Mapping[str, Any], used: set[int]) -> tuple[dict[str, Any], int | None, Curve]:
        row = int(nearest([suggested], used)[0])
        return params[row], row, Curve(seen[row], scored[row])

    def snapped(suggested: Sequence[Mapping[str, Any]], used: set[int]) -> list[dict[str, Any]]:
        return [params[row] for row in nearest(suggested, used)]

    best = float(np.nanmax(np.where(np.isfinite(seen), scored, np.nan)))
    return Task(family, name, seen.shape[1], suggest, curve, best, worst, snapped)


def taskset(path: Path) -> Task:
    """One of Taskset's tables: real curves of recurrent text classifiers under Adam with decay."""
    data = np.load(path, allow_pickle=False)
    linear = {"beta1", "beta2"}
    columns = {
        name: _Column(data["hyperparameters"][:, i].astype(float), log=name not in linear)
        for i, name in enumerate(map(str, data["names"]))
    }
    seen, scored = -data["valid_loss"].astype(float)[:, 1:], -data["test_loss"].astype(float)[:, 1:]
    worst = float(np.nanmedian(-data["test_loss"][:, 0]))
    return _table_task("taskset", path.stem.removeprefix("taskset_"), columns, seen, scored, worst)


def recorded(path: Path) -> Task:
    """A table that `benchmarks/record_curves.py` has written."""
    data = np.load(path, allow_pickle=False)
    logs = set(map(str, data["log_names"]))
    columns = {"optimizer": _Column(data["optimizer"])}
    for i, name in enumerate(map(str, data["names"])):
        columns[name] = _Column(data["hyperparameters"][:, i].astype(float), log=name in logs)
    seen, scored = data["val_accuracy"].astype(float), data["mean_val_accuracy"].astype(float)
    return _table_task("faces", path.stem, columns, seen, scored, 1 / 7)


def lcbench(folder: Path, codes: tuple[str, ...]) -> list[Task]:
    """The surrogate of LCBench: funnel-shaped networks on tabular data. Epochs 2 to 51 of it are 1 to 50 here."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(folder / "lcbench.onnx"), options)
    encoding = json.loads((folder / "lcbench_encoding.json").read_text())
    codes_by_task = encoding.get("OpenML_task_id", encoding)
    return [_lcbench_task(session, task, int(codes_by_task[task])) for task in codes]


_LCBENCH = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")


def _suggest_lcbench(trial: Any) -> dict[str, Any]:
    return {
        "batch_size": trial.suggest_int("batch_size", 16, 512, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.1, log=True),
        "momentum": trial.suggest_float("momentum", 0.1, 0.99),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 0.1),
        "num_layers": trial.suggest_int("num_layers", 1, 5),
        "max_units": trial.suggest_int("max_units", 64, 1024, log=True),
        "max_dropout": trial.suggest_float("max_dropout", 0.0, 1.0),
    }


def _lcbench_task(session: Any, name: str, code: int) -> Task:
    def predicted(configurations: Floats, epochs: Floats) -> Floats:
        """Of [n, 7] configurations at [m] epochs: [n, m, 2], seconds until then and accuracy in percent."""
        n, m = len(configurations), len(epochs)
        rows = np.concatenate([np.tile(epochs, n)[:, None], np.repeat(configurations, m, axis=0)], axis=1)
        given = {"x_cat": np.full((n * m, 1), code, np.int32), "x_cont": rows.astype(np.float32)}
        return np.asarray(session.run(None, given)[0][:, :2], float).reshape(n, m, 2)

    def accuracy(configurations: Floats, epochs: Floats) -> Floats:
        """The same in [0, 1]: [n, m]."""
        return predicted(configurations, epochs)[:, :, 1] / 100

    every = np.arange(1.0, 52.0)

    def curve(suggested: Mapping[str, Any], _used: set[int]) -> tuple[dict[str, Any], int | None, Curve]:
        seconds, percent = predicted(np.array([[suggested[n] for n in _LCBENCH]], float), every)[0].T
        values = percent[1:] / 100
        # From epoch to epoch the surrogate's clock may go back: each takes its share of the whole.
        return dict(suggested), None, Curve(values, values, np.full(len(values), seconds.max() / len(every)))

    rng = np.random.default_rng(0)
    u = rng.random((N_REFERENCE, 7))
    sample = np.column_stack([
        np.round(16 * 32 ** u[:, 0]), 1e-4 * 1e3 ** u[:, 1], 0.1 + 0.89 * u[:, 2], 1e-5 + (0.1 - 1e-5) * u[:, 3],
        1 + np.floor(5 * u[:, 4]), np.round(64 * 16 ** u[:, 5]), u[:, 6],
    ])  # fmt: skip
    some = np.array([8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 51.0])
    best = _best_of(accuracy, sample, some, rng)
    worst = float(np.median(accuracy(sample[:500], np.array([1.0]))))
    return Task("lcbench", name, len(every) - 1, _suggest_lcbench, curve, best, worst)


def _best_of(accuracy: Callable[[Floats, Floats], Floats], sample: Floats, epochs: Floats, rng: Any) -> float:
    """The best accuracy known: of the sample, then of what lies around its best, nearer and nearer."""
    low, high = sample.min(0), sample.max(0)
    values = accuracy(sample, epochs).max(1)
    for width in (0.1, 0.05, 0.02, 0.01):
        leaders = sample[np.argsort(-values)[:20]]
        around = np.repeat(leaders, 40, axis=0)
        moved = np.clip(around + width * (high - low) * rng.standard_normal(around.shape), low, high)
        moved[:, [0, 4, 5]] = np.round(moved[:, [0, 4, 5]])
        sample, values = np.concatenate([sample, moved]), np.concatenate([values, accuracy(moved, epochs).max(1)])
    return float(values.max())


def closed_form(kind: str) -> Task:
    """Curves by formula, so that the benchmark runs with no data: `smooth`, `flat` with a narrow peak, `crossing`."""

    def suggest(trial: Any) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1.0, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.6),
            "optimizer": trial.suggest_categorical("optimizer", ("sgd", "adam", "rmsprop")),
        }

    def curve(suggested: Mapping[str, Any], _used: set[int]) -> tuple[dict[str, Any], int | None, Curve]:
        kinds = {"sgd": -0.5, "adam": -3.0, "rmsprop": -3.2}
        away = math.log10(suggested["learning_rate"]) - kinds[suggested["optimizer"]]
        width = {"smooth": 1.5, "flat": 0.3, "crossing": 0.8}[kind]
        top = 0.6 * math.exp(-((away / width) ** 2)) - 0.1 * (suggested["dropout"] - 0.3) ** 2
        # In `crossing` what begins fast ends low.
        speed = 2 + (10 * max(0.0, -away) if kind != "crossing" else 25 * math.exp(-abs(away - 0.4)))
        epochs = np.arange(1.0, 51.0)
        values = 0.14 + top * (1 - np.exp(-epochs / speed))
        if suggested["learning_rate"] > 0.9:
            values[3:] = np.nan
        return dict(suggested), None, Curve(values, values)

    return Task("closed_form", kind, 50, suggest, curve, 0.74, 0.14)
