"""The paper's table 2: SGD and Adam at one learning rate, 0.05, for 100 and 200 epochs, and its numbers beside ours.

python -m hpo.run --study table2
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpo.spec import StudySpec
from studies.faces import draw_faces, face_trainer, fer2013_faces

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PAPER = {(100, "sgd"): 0.5858, (200, "sgd"): 0.6020, (100, "adam"): 0.2382, (200, "adam"): 0.2571}
"""Validation accuracy by epochs and optimizer, in [0, 1], as table 2 has it."""


def suggest(trial: Any) -> dict[str, Any]:
    """The four rows; learning rate, batch size and dropout are the paper's throughout."""
    return {
        "optimizer": trial.suggest_categorical("optimizer", ("sgd", "adam")),
        "learning_rate": 0.05,
        "batch_size": 128,
        "epochs": trial.suggest_categorical("epochs", (100, 200)),
        "dropout": 0.2,
    }


def compare(trials: Sequence["FrozenTrial"]) -> Iterator[str]:
    """The paper's rows with ours beside them."""
    ours = {(t.params.get("epochs"), t.params.get("optimizer")): t.value for t in trials if t.value is not None}
    yield f"{'epochs':>6}  {'optimizer':<9}  {'paper':>7}  {'ours':>7}"
    for (epochs, optimizer), paper in PAPER.items():
        value = ours.get((epochs, optimizer))
        yield f"{epochs:>6}  {optimizer:<9}  {paper:>7.2%}  {'-' if value is None else f'{value:.2%}':>7}"


STUDY = StudySpec(
    name="table2",
    suggest=suggest,
    prepare=face_trainer(fer2013_faces(split="paper"), pool_stride=1),
    metric="val_accuracy",
    draw=draw_faces,
    value="last",
    n_trials=4,
    max_epochs=200,
    sampler="grid",
    reuse_epochs=True,
    summarize=lambda trials: list(compare(trials)),
)
