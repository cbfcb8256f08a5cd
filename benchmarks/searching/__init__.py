"""Searches on recorded curves: tasks, methods, tables. The command is `benchmarks/search.py`."""
