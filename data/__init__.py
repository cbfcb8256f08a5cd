"""What a face data set is, and every way in which one is read. Knows numpy; never torch, optuna or mlflow."""
