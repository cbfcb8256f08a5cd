"""The search for a laptop without a GPU: the compact network on 3,000 real training images, few epochs.

python -m hpo.run --study fer_small
"""

from typing import Any

from hpo.spec import StudySpec
from studies.faces import draw_faces, face_trainer, fer2013_faces, suggest_faces


def suggest(trial: Any) -> dict[str, Any]:
    """The space of `fer`, with the epochs that a CPU has time for."""
    return suggest_faces(trial, batch_sizes=(32, 64, 128, 256, 512), epochs=(3, 8))


STUDY = StudySpec(
    name="fer_small",
    suggest=suggest,
    prepare=face_trainer(fer2013_faces(split="paper", n_images=3_000), pool_stride=2),
    metric="val_accuracy",
    draw=draw_faces,
    n_trials=16,
    max_epochs=8,
    sampler="tpe",
    pruner="asha",
    enqueue=({"optimizer": "sgd", "learning_rate_scale": 1.0, "batch_size": 128, "epochs": 8, "dropout": 0.2},),
)
