"""A small study that is killed again and again, and what must hold of it at its end.

The witness is a file outside the product, to which the trainer adds a line for each epoch that it has really trained.
"""

import collections
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from tests.end_to_end.stores import ROOT, environment, runs
from tests.faults.points import POINTS

N_TRIALS, N_EPOCHS = 10, 2
INJECT = Path(__file__).parent / "inject"
KILLED = -9
STUDY = f"""
from pathlib import Path

import model.trainer
from hpo.spec import StudySpec
from studies.faces import drawn_faces, face_trainer

WITNESS = Path(__file__).with_name("witness.txt")
plain = model.trainer.train_epochs


def witnessed(state, *args):
    for metrics in plain(state, *args):
        with WITNESS.open("a") as file:
            file.write(f"{{Witnessed.trial}} {{state.epoch - 1}}\\n")
        yield metrics


model.trainer.train_epochs = witnessed


class Witnessed:
    trial = None

    def __init__(self, trainer):
        self._trainer = trainer

    def train(self, params, *, seed, workdir):
        Witnessed.trial = workdir.name
        yield from self._trainer.train(params, seed=seed, workdir=workdir)

    def __getattr__(self, name):
        return getattr(self._trainer, name)


def suggest(trial):
    return {{
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "optimizer": trial.suggest_categorical("optimizer", ["sgd", "adam"]),
        "batch_size": 32,
        "epochs": {N_EPOCHS},
    }}


def prepare(context):
    faces = drawn_faces(n_train=140, n_validation=70, n_test=0, image_size=16)
    return Witnessed(face_trainer(faces, pool_stride=2, checkpoint_seconds=0)(context))


STUDY = StudySpec(name="hurt", suggest=suggest, prepare=prepare, metric="val_accuracy", n_trials={N_TRIALS})
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of a study: its trials, and how often each (trial, epoch) was trained."""

    trials: Sequence[optuna.trial.FrozenTrial]
    trained: collections.Counter[tuple[str, str]]


def begin(folder: Path) -> None:
    """Put the study into a folder of its own."""
    folder.mkdir()
    (folder / "hurt.py").write_text(STUDY)


def command(folder: Path, storage: str, fault: str = "") -> int:
    """Run the study until it ends, or is killed; gives the exit code."""
    return started(folder, storage, fault).wait(timeout=600)


def started(folder: Path, storage: str, fault: str = "") -> subprocess.Popen[bytes]:
    """Start the study's command."""
    count = folder / "calls"
    count.unlink(missing_ok=True)
    paths = os.pathsep.join([str(INJECT), str(ROOT)])
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hpo.run", "--study", "hurt.py", "--storage", storage, "--workers", "1", "--device", "cpu"],
            cwd=folder, env={**environment(), "PYTHONPATH": paths, "FAULT": fault, "FAULT_COUNT": str(count)},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def hurt(folder: Path, storage: str, point: str, who: str, moments: random.Random) -> tuple[bool, bool]:
    """Run the study with a kill at a point; gives whether the kill came, and whether the study is done all the same."""
    at = POINTS[point]
    n = moments.randint(1, at.calls)
    code = command(folder, storage, f"{at.module} {at.function} {at.when} {n} {who}")
    assert code in {0, KILLED}, (point, n, who, said(folder)[-2000:])
    calls = folder / "calls"
    struck = calls.exists() and calls.stat().st_size >= n
    assert (code == KILLED) == struck or who == "one", (point, n, who)
    return struck, code == 0


def said(folder: Path) -> str:
    """What its commands have said so far."""
    log = folder / "log.txt"
    return log.read_text() if log.exists() else ""


def n_trained(folder: Path) -> int:
    """Epochs in all so far."""
    witness = folder / "witness.txt"
    return len(witness.read_text().splitlines()) if witness.exists() else 0


def outcome(folder: Path, storage: str) -> Outcome:
    """What is left of the study."""
    trials = optuna.load_study(study_name="hurt", storage=storage).trials
    lines = (folder / "witness.txt").read_text().splitlines()
    return Outcome(trials, collections.Counter((line.split()[0], line.split()[1]) for line in lines))


def assert_unhurt(folder: Path, storage: str, whole: Outcome, n_kills: int) -> None:
    """What must hold of a study that was killed so often, beside one that was left alone."""
    found = outcome(folder, storage)
    ends = [t.state for t in found.trials]
    assert ends == [TrialState.COMPLETE] * N_TRIALS, [t.user_attrs for t in found.trials]
    for mine, other in zip(found.trials, whole.trials, strict=True):
        assert (mine.params, mine.value, mine.intermediate_values) == (
            other.params, other.value, other.intermediate_values,
        )  # fmt: skip
    assert found.trained.keys() == whole.trained.keys()
    redone = sum(found.trained.values()) - len(found.trained)
    assert redone <= n_kills, f"{redone} epochs were trained again after {n_kills} kills"
    tracked = runs(folder, "hurt")  # which refuses two runs of one trial
    for trial in found.trials:
        run, points = tracked[str(trial.number)]
        assert run.info.status == "FINISHED"
        assert points["val_accuracy"] == sorted(trial.intermediate_values.items())
    for file in [*folder.glob("*.db"), *folder.glob("outbox/*.db")]:
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], file
