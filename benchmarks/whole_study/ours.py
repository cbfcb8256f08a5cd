"""This service's: a study of the fixed list; run by `hpo.run`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.whole_study.marks import marked
from benchmarks.whole_study.trials import IMAGE_SIZE, N_TRAIN, N_VALIDATION, TRIALS
from hpo.spec import Context, StudySpec
from studies.faces import draw_faces, drawn_faces, face_trainer

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "rmsprop")


class Marked:
    """A trainer whose epochs are marked; all else is the trainer's own."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def train(self, params: Any, *, seed: int, workdir: Path) -> Iterator[Any]:
        """The trainer's epochs."""
        yield from marked(workdir.name, self._trainer.train(params, seed=seed, workdir=workdir))

    def __getattr__(self, name: str) -> Any:
        """Everything else."""
        return getattr(self._trainer, name)


def suggest(trial: Any) -> dict[str, Any]:
    """The space that the list lies in."""
    return {
        "optimizer": trial.suggest_categorical("optimizer", OPTIMIZERS),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
        "batch_size": trial.suggest_categorical("batch_size", (16, 32, 64)),
        "epochs": trial.suggest_int("epochs", 6, 8),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def prepare(context: Context) -> Any:
    """The demo's network, with the checkpoints of a study that says nothing of them: one in 30 s at most."""
    faces = drawn_faces(n_train=N_TRAIN, n_validation=N_VALIDATION, n_test=0, image_size=IMAGE_SIZE)
    return Marked(face_trainer(faces, pool_stride=2)(context))


STUDY = StudySpec(
    name="ours", suggest=suggest, prepare=prepare, metric="val_accuracy", n_trials=len(TRIALS), enqueue=TRIALS,
    draw=draw_faces,
)  # fmt: skip
