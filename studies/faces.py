"""What the studies share: how faces and a network become a trainer, and the five params that all of them search.

Importing this does no I/O and takes no time: torch and the data are loaded when a worker prepares its trainer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpo.errors import UserError
from hpo.spec import Context, Trainer
from model.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from data.faces import Faces
    from model.augmentation import Augmentation


def suggest_faces(
    trial: Any,
    *,
    batch_sizes: Sequence[int],
    epochs: tuple[int, int],
    rate_span: float = 30.0,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
) -> dict[str, Any]:
    """The five params of the network's training.

    One axis `learning_rate_scale` is searched for all optimizers: a multiple of the optimizer's reference rate. A range
    of its own for each, under one name, would drop out of the joint space of TPE and GP.

    Args:
        trial: Optuna's.
        batch_sizes: choices.
        epochs: lowest and highest.
        rate_span: the scale lies in [1 / rate_span, rate_span], log-uniform.
        optimizers: choices.
    """
    optimizer = trial.suggest_categorical("optimizer", optimizers)
    scale = trial.suggest_float("learning_rate_scale", 1 / rate_span, rate_span, log=True)
    return {
        "optimizer": optimizer,
        "learning_rate": OPTIMIZERS[optimizer].reference_rate * scale,
        "batch_size": trial.suggest_categorical("batch_size", batch_sizes),
        "epochs": trial.suggest_int("epochs", *epochs),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def fer2013_faces(
    *, split: Literal["paper", "official"] = "paper", without_leaks: bool = False, n_images: int | None = None
) -> Callable[[Context], "Faces"]:
    """FER2013 from where the command line or the environment says; at most `n_images` of it for training."""

    def load(context: Context) -> "Faces":
        from data import fer2013

        faces = fer2013.load(fer2013.locate(context.data), split=split, without_leaks=without_leaks)
        return faces if n_images is None else faces.limited(n_images)

    return load


def drawn_faces(*, n_train: int, n_validation: int, n_test: int, image_size: int) -> Callable[[Context], "Faces"]:
    """Faces drawn by program: nothing to download."""

    def draw(_context: Context) -> "Faces":
        from data.synthetic import synthetic_faces

        return synthetic_faces(n_train=n_train, n_validation=n_validation, n_test=n_test, image_size=image_size)

    return draw


def draw_faces(workdir: Path) -> None:
    """What a study's `draw` is: learning curve and confusion matrix of a trial of `face_trainer`."""
    from model.pictures import draw

    draw(workdir)


def face_trainer(
    faces: Callable[[Context], "Faces"],
    *,
    pool_stride: Literal[1, 2],
    augmentation: "Augmentation" = "none",
    checkpoint_seconds: float = 30.0,
) -> Callable[[Context], Trainer]:
    """What a study's `prepare` is: the network on these faces.

    Args:
        faces: makes the data set.
        pool_stride: 1 for the network as published, 2 for the compact one.
        augmentation: how training images are varied: none, flip, flip-shift.
        checkpoint_seconds: the least time between two checkpoints; 0 writes one every epoch.
    """

    def prepare(context: Context) -> Trainer:
        from data.errors import DataError
        from model.trainer import FaceTrainer

        try:
            return FaceTrainer(
                faces(context),
                device=context.device,
                pool_stride=pool_stride,
                augmentation=augmentation,
                checkpoint_seconds=checkpoint_seconds,
                threads=context.threads,
                share=1 / context.workers,
                stop=context.stop,
                owned=context.owned,
            )
        except OSError as error:
            raise UserError(f"{error.filename or context.data}: {error.strerror or error}") from None
        except (DataError, ValueError) as error:
            raise UserError(str(error)) from None

    return prepare
