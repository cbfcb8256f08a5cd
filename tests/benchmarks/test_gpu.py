"""The benchmark of a GPU runs through on a CPU, at toy size, where neither optuna nor mlflow is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_runs_without_the_service_and_writes_what_it_measured(tmp_path):
    for absent in ("optuna", "mlflow", "sqlalchemy"):
        (tmp_path / f"{absent}.py").write_text(f"raise ImportError('no {absent} here')")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick", "--json", str(tmp_path / "gpu.json")]

    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["machine"]["card"] is None
    assert report["ratios"]["compact.b32.adam.vs_plain"] > 0
    assert [row["path"] for row in report["samples"]["learnt"]] == ["ours", "plain", "float32"]
    assert report["samples"]["starts"]["warm_seconds"] > 0
