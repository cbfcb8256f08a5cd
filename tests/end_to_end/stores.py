"""Reads what a study left, and runs the real command."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(folder: Path, *args: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpo.run", *args]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "hpo.run", *args]
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)


def filled(disk: Path) -> Path:
    """Fill a file system to its last byte; gives the file that does."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for size in (1 << 22, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def trials(folder: Path, study: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'hpo.db'}").trials


def runs(folder: Path, study: str, store: str = "mlflow.db") -> dict[str, Any]:
    """Trial number (or `study`) -> its run, its metric points by name."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / store}")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found: dict[str, Any] = {}
    for each in client.search_runs([experiment.experiment_id], max_results=1000):
        key = each.data.tags.get("optuna.trial_number", "study")
        assert key not in found, f"two runs of {key}"
        points = {
            name: [(m.step, m.value) for m in client.get_metric_history(each.info.run_id, name)]
            for name in each.data.metrics
        }
        found[key] = (each, {name: sorted(history) for name, history in points.items()})
    return found
