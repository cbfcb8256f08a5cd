"""The service: studies that survive anything. Knows optuna, mlflow and sqlalchemy; never torch, model or data.

For scripts and notebooks: `from hpo import load_study`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.notebook import load_study

__all__ = ["load_study"]


def __getattr__(name: str) -> Any:
    """What the package hands on; imported when it is asked for, so that the commands answer at once."""
    if name == "load_study":
        from hpo.notebook import load_study

        return load_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
