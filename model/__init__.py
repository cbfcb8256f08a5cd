"""The fixed network and its training. Knows torch and data; never optuna or mlflow."""
