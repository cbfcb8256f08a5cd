"""A study to look at: drawn faces at 24×24, the compact network, under two minutes on two cores. Copy it for your own.

python -m hpo.run --study demo
"""

from typing import Any

from hpo.spec import StudySpec
from studies.faces import draw_faces, drawn_faces, face_trainer, suggest_faces


def suggest(trial: Any) -> dict[str, Any]:
    """The search space, in Optuna's own terms; what it returns is what the trainer gets."""
    return suggest_faces(trial, batch_sizes=(16, 32, 64), epochs=(6, 8))


STUDY = StudySpec(
    name="demo",
    suggest=suggest,
    prepare=face_trainer(
        drawn_faces(n_train=980, n_validation=350, n_test=350, image_size=24), pool_stride=2, checkpoint_seconds=0
    ),
    metric="val_accuracy",
    draw=draw_faces,
    n_trials=8,
    max_epochs=8,
    pruner="median",
    enqueue=({"optimizer": "sgd", "learning_rate_scale": 1.0, "batch_size": 32, "epochs": 8, "dropout": 0.2},),
)
