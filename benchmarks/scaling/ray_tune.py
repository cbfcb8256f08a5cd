"""The trivial study under Ray Tune with OptunaSearch; prints the seconds from the first trial to the last one's end."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.scaling.trivial import EPOCHS, suggest, value_of


def train(config: dict[str, Any]) -> None:
    """Twenty reports that do nothing."""
    for epoch in range(EPOCHS):
        tune.report({"score": value_of(config, epoch)})


def space(trial: Any) -> None:
    """The same five suggests."""
    suggest(trial)


def main() -> int:
    """Run it."""
    n = int(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    search = ConcurrencyLimiter(OptunaSearch(space, metric="score", mode="max"), max_concurrent=2)
    config = tune.TuneConfig(num_samples=n, search_alg=search, metric="score", mode="max")
    began = time.perf_counter()
    tune.Tuner(train, tune_config=config, run_config=tune.RunConfig(verbose=0)).fit()
    seconds = time.perf_counter() - began
    ray.shutdown()
    sys.stdout.write(f"{seconds}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
