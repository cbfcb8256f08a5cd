"""The schedulers that a study can name."""

from collections.abc import Callable

from hpo.schedulers.asha import AshaScheduler
from hpo.schedulers.freeze_thaw import FreezeThawScheduler
from hpo.schedulers.optuna import OptunaScheduler
from hpo.schedulers.protocol import Scheduler
from hpo.spec import StudySpec


def make_scheduler(spec: StudySpec) -> Scheduler:
    """The scheduler that a study names, or that its own function makes."""
    if callable(spec.scheduler):
        made: Scheduler = spec.scheduler(spec)
        return made
    known: dict[str, Callable[[StudySpec], Scheduler]] = {
        "optuna": OptunaScheduler,
        "asha": AshaScheduler,
        "freeze_thaw": FreezeThawScheduler,
        "auto": FreezeThawScheduler,
    }
    return known[spec.scheduler](spec)
