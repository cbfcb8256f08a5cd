"""The fixed list of trials, the size of the demo's, and their data."""

from typing import Any

IMAGE_SIZE, N_TRAIN, N_VALIDATION = 24, 980, 350

TRIALS: list[dict[str, Any]] = [
    {"optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "epochs": epochs, "dropout": dropout}
    for optimizer, rate, batch, epochs, dropout in [
        ("sgd", 0.05, 32, 8, 0.2), ("adam", 1e-3, 64, 6, 0.1), ("adamw", 5e-4, 16, 7, 0.3),
        ("rmsprop", 5e-4, 32, 6, 0.4), ("momentum", 0.01, 64, 8, 0.0), ("adam", 3e-4, 16, 6, 0.2),
        ("sgd", 0.1, 64, 7, 0.5), ("adamw", 1e-3, 32, 8, 0.2),
    ]
]  # fmt: skip
