"""The search: the network as published, on FER2013, split as the paper did. Needs a GPU, and 60 GB of disk.

Its budget is that of twenty trainings of 200 epochs, spent on many more configurations: trials are paused, and go on
when they are the likeliest to become the best.

python -m hpo.run --study fer
"""

from typing import Any

from hpo.spec import StudySpec
from studies.faces import draw_faces, face_trainer, fer2013_faces, suggest_faces

PAPER = {"optimizer": "sgd", "learning_rate_scale": 1.0, "batch_size": 128, "epochs": 200, "dropout": 0.2}
"""The paper's best configuration: SGD at 0.05, batches of 128, 200 epochs."""


def suggest(trial: Any) -> dict[str, Any]:
    """Five params: optimizer, learning rate around its reference, batch size, epochs, dropout."""
    return suggest_faces(trial, batch_sizes=(32, 64, 128, 256, 512), epochs=(20, 200))


STUDY = StudySpec(
    name="fer",
    suggest=suggest,
    prepare=face_trainer(fer2013_faces(split="paper"), pool_stride=1),
    metric="val_accuracy",
    draw=draw_faces,
    n_trials=None,
    n_epochs=4_000,
    max_epochs=200,
    scheduler="auto",
    checkpoint_bytes=40_000_000_000,
    enqueue=(PAPER,),
)
