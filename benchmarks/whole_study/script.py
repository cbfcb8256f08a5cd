"""A user's own script, as Optuna's and MLflow's examples put the two together.

`python -m benchmarks.whole_study.script FACES`: a nested run a trial, parameters, metrics of every epoch, the best
weights and a learning curve as artifacts; the study in SQLite, so that it could be continued.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import optuna

from benchmarks.plain import epochs
from benchmarks.whole_study.marks import marked
from benchmarks.whole_study.trials import IMAGE_SIZE, TRIALS

mpl.use("Agg")
FOLDER = Path(sys.argv[1])


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """The search space."""
    return {
        "optimizer": trial.suggest_categorical("optimizer", ("sgd", "momentum", "adam", "adamw", "rmsprop")),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
        "batch_size": trial.suggest_categorical("batch_size", (16, 32, 64)),
        "epochs": trial.suggest_int("epochs", 6, 8),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def objective(trial: optuna.Trial) -> float:
    """Train one configuration; its best validation accuracy."""
    import matplotlib.pyplot as plt

    params = suggest(trial)
    weights = Path(f"best-{trial.number}.pt")
    with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
        mlflow.log_params(params)
        history = []
        for epoch, metrics in enumerate(marked(str(trial.number), epochs(FOLDER, params, IMAGE_SIZE, weights))):
            mlflow.log_metrics(metrics, step=epoch)
            history.append(metrics)
            trial.report(metrics["val_accuracy"], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        mlflow.log_artifact(str(weights))
        figure, axes = plt.subplots()
        axes.plot([m["train_accuracy"] for m in history], label="training")
        axes.plot([m["val_accuracy"] for m in history], label="validation")
        axes.legend()
        mlflow.log_figure(figure, "learning_curve.png")
        plt.close(figure)
    return float(max(m["val_accuracy"] for m in history))


def main() -> None:
    """Run the fixed list."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("script")
    study = optuna.create_study(
        study_name="script", storage="sqlite:///optuna.db", direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.NopPruner(),
    )  # fmt: skip
    for params in TRIALS:
        study.enqueue_trial(params)
    with mlflow.start_run(run_name="study"):
        study.optimize(objective, n_trials=len(TRIALS))
        mlflow.log_metric("best_val_accuracy", study.best_value)


if __name__ == "__main__":
    main()
