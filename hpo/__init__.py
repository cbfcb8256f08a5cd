"""The service: studies that survive anything. Knows optuna, mlflow and sqlalchemy; never torch, model or data."""
