"""The moments at which a kill could lose, double or damage something, each by the function that it falls upon."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A function of the product's code, as its caller finds it, and whether the kill comes before or after it."""

    module: str
    function: str
    when: str
    calls: int
    """It is one of the first so many calls."""


POINTS = {
    "after the ask": Point("hpo.search", "_started", "before", 1),
    "before the lease": Point("hpo.leases", "Leases.claim", "before", 1),
    "amid an epoch": Point("model.training", "validate", "before", 3),
    "inside the take-over": Point("hpo.records", "open_run", "before", 1),
    "amid the write of a checkpoint": Point("torch", "save", "after", 2),
    "between a checkpoint and its manifest": Point("model.checkpoint", "write", "after", 2),
    "amid the tell": Point("hpo.records", "end_run", "after", 1),
    "amid a delivery to MLflow": Point("hpo.outbox", "Outbox.mark_sent", "before", 4),
}
"""`inside the take-over` comes after a kill that leaves a trial to be taken over."""
