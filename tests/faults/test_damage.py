"""Checkpoints that are damaged while no command runs: training falls back, or starts again, says which, and ends alike."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.faults.campaign import KILLED, Outcome, assert_unhurt, begin, command, said

pytestmark = pytest.mark.slow
SEED = 20_261_128
KILLS = ("hpo.records end_run after 2 all", *(f"model.training validate before {n} all" for n in (4, 5, 6)))
"""Kills that leave a trial with checkpoints, most often, when the one before it has long gone on."""
TOLD = ("/checkpoints: the checkpoint of epoch", "manifest.json is damaged", "no checkpoint can be used")
GOES_ON = ("/checkpoints: training goes on from the checkpoint of epoch", "training starts again from epoch 0")


def flipped(content: bytes, moments: random.Random) -> bytes:
    """One bit of it is another."""
    at = moments.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << moments.randrange(8)]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda content, moments: content[: moments.randrange(1, len(content))],
    "flipped": flipped,
    "empty": lambda _, __: b"",
    "another": lambda content, moments: moments.randbytes(len(content)),
}


def assert_ends_alike(tmp_path: Path, whole: Outcome, damages: list[str]) -> None:
    """A study is killed, damaged in what it left, and goes on, again and again."""
    moments, n, waiting = random.Random(SEED), 0, list(damages)
    while waiting:
        n += 1
        folder = tmp_path / f"study-{n}"
        begin(folder)
        storage, code, n_kills, damaged = f"sqlite:///{folder / 'hpo.db'}", KILLED, 0, ""
        while code == KILLED and (waiting or damaged):
            before = len(said(folder))
            code = command(folder, storage, moments.choice(KILLS))
            n_kills += 1
            words = said(folder)[before:]
            assert code in {0, KILLED}, words
            assert "Traceback" not in words
            assert not damaged or any(told in words for told in TOLD), f"seed {SEED}: {damaged}: {words}"
            assert not damaged or any(told in words for told in GOES_ON), f"seed {SEED}: {damaged}: {words}"
            damaged = ""
            if code == KILLED and waiting and (left := checkpoint_files(folder, storage)):
                how = waiting.pop()
                file = moments.choice(left[:2] if how == "flipped" else left)  # some bits of a manifest mean nothing
                file.write_bytes(DAMAGES[how](file.read_bytes(), moments))
                damaged = f"{file} is {how}"
        assert command(folder, storage) == 0, said(folder)
        assert_unhurt(folder, storage, whole, 3 * n_kills)  # one of a kill, two where the trial starts again


def checkpoint_files(folder: Path, storage: str) -> list[Path]:
    """What the newest checkpoint of the trial that was running is kept in."""
    for trial in optuna.load_study(study_name="hurt", storage=storage).trials:
        if trial.state == TrialState.RUNNING:
            for manifest in (folder / "trials" / "hurt" / str(trial.number)).rglob("manifest.json"):
                newest = json.loads(manifest.read_text())[-1]
                return [manifest.parent / newest["file"], manifest.parent / newest["best_file"], manifest]
    return []


def test_what_is_cut_and_flipped_is_passed_over_and_said(tmp_path, whole):
    assert_ends_alike(tmp_path, whole, ["cut", "flipped"])


@pytest.mark.long
@pytest.mark.skipif("HPO_LONG_TESTS" not in os.environ, reason="46 take half an hour; set HPO_LONG_TESTS=1")
def test_checkpoints_cut_at_twenty_places_and_flipped_at_twenty_bytes_are_passed_over_and_said(tmp_path, whole):
    assert_ends_alike(tmp_path, whole, ["cut", "flipped"] * 20 + ["empty", "another"] * 3)
