"""The same by Ray Tune, with its MLflow callback: `python -m benchmarks.whole_study.ray_tune FACES [--reuse-actors]`.

By default Ray starts a process for every trial; with the flag one process runs them all.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback

from benchmarks.whole_study.trials import IMAGE_SIZE, TRIALS


def train(config: dict[str, Any]) -> None:
    """Train one configuration; Ray is told of every epoch, and keeps the best weights."""
    from benchmarks.plain import epochs
    from benchmarks.whole_study.marks import marked

    os.environ["MARKS"] = config["marks"]
    trial = tune.get_context().get_trial_id()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "best.pt"
        for metrics in marked(str(trial), epochs(Path(config["folder"]), config["params"], IMAGE_SIZE, weights)):
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Run the fixed list, one trial at a time on all cores, as the others do."""
    cores = os.cpu_count() or 1
    here = Path.cwd()
    ray.init(num_cpus=cores, include_dashboard=False, configure_logging=True, log_to_driver=False)
    keep = tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="val_accuracy")
    callback = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{here / 'mlflow.db'}", experiment_name="ray", save_artifact=True
    )
    tune.Tuner(
        tune.with_resources(train, {"cpu": cores}),
        param_space={"params": tune.grid_search(TRIALS), "folder": sys.argv[1], "marks": os.environ["MARKS"]},
        tune_config=tune.TuneConfig(
            metric="val_accuracy", mode="max", max_concurrent_trials=1, reuse_actors="--reuse-actors" in sys.argv
        ),
        run_config=tune.RunConfig(
            storage_path=str(here / "ray"), callbacks=[callback], verbose=0, checkpoint_config=keep
        ),
    ).fit()
    ray.shutdown()


if __name__ == "__main__":
    main()
