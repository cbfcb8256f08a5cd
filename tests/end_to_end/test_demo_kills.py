"""SIGKILL at random moments: the finished demo equals the one left alone, under a scheduler that pauses too."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.stores import run, runs, start, trials

pytestmark = [pytest.mark.slow, pytest.mark.alone]

FROZEN = """
from dataclasses import replace
from studies import demo
STUDY = replace(demo.STUDY, name="frozen", scheduler="freeze_thaw", pruner="none", n_trials=None, n_epochs=40)
"""
ARGS = {
    "demo": ("--study", "demo", "--workers", "1", "--device", "cpu", "--trials", "8"),
    "frozen": ("--study", "frozen.py", "--workers", "1", "--device", "cpu"),
}


def kept(points: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    return {k: v for k, v in points.items() if k.startswith(("train_", "val_", "learning_rate"))}


def kill_at_random(folder: Path, study: str, times: int, seed: int) -> int:
    """Start and SIGKILL the whole group; gives how many kills fell amid training."""
    moments, hits = random.Random(seed), 0

    def checkpoints() -> list[tuple[str, int]]:
        with contextlib.suppress(FileNotFoundError):
            return sorted((str(p), p.stat().st_mtime_ns) for p in folder.glob(f"trials/{study}/*/checkpoints/*.pt"))
        return []

    for _ in range(times):
        before = checkpoints()
        process = start(folder, *ARGS[study])
        deadline = time.monotonic() + 40
        while process.poll() is None and checkpoints() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 4))
        if process.poll() is not None:
            break
        hits += checkpoints() != before
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return hits


def assert_killed_equals_whole(tmp_path: Path, study: str, times: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "frozen.py").write_text(FROZEN)
    assert run(whole, *ARGS[study]).returncode == 0

    hits = kill_at_random(broken, study, times, seed=20_261_125)
    assert run(broken, *ARGS[study]).returncode == 0

    assert hits > times / 2
    for a, b in zip(trials(whole, study), trials(broken, study), strict=True):
        assert (a.number, a.state, a.params, a.intermediate_values, a.value) == (
            b.number, b.state, b.params, b.intermediate_values, b.value,
        )  # fmt: skip
        assert a.user_attrs["hpo.decisions"] == b.user_attrs["hpo.decisions"]
    alone, resumed = runs(whole, study), runs(broken, study)
    assert sorted(alone) == sorted(resumed)
    for key in alone:
        assert kept(alone[key][1]) == kept(resumed[key][1])
        assert alone[key][0].info.status == resumed[key][0].info.status


@pytest.mark.parametrize("study", ARGS)
def test_five_kills_change_nothing(tmp_path, study):
    assert_killed_equals_whole(tmp_path, study, 5)


@pytest.mark.long
@pytest.mark.parametrize("study", ARGS)
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="twenty kills take ten minutes; set HPO_LONG_TESTS=1")
def test_twenty_kills_change_nothing(tmp_path, study):
    assert_killed_equals_whole(tmp_path, study, 20)
