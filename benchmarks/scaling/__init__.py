"""What `benchmarks/scale.py` runs: a study that trains nothing, ours, Optuna's and Ray Tune's way."""
