"""Names under which several modules find what one of them has put: folders, a study's attributes, a sibling study."""

OUTBOX = "outbox"
"""The folder of outboxes, in the working folder."""
OVER = "hpo.over"
"""The study's attribute that says why it is at its end, and under which budget."""
CONFIRMS = "hpo.confirms"
"""The attribute of a study that confirms another which says the other's id."""
DEFAULT_URL = "sqlite:///hpo.db"
"""The Optuna store, unless it is said."""
STORAGE_VARIABLE = "HPO_STORAGE"
"""Brings a process its `--storage`, which may hold a password: everybody on a machine may read arguments."""


def sibling_name(study: str) -> str:
    """The name of the study that confirms another."""
    return f"{study}-confirm"
