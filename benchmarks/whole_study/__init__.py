"""The same study by this service, by a script of Optuna and MLflow, and by Ray Tune; see `benchmarks/study.py`."""
