"""A study's trainer, made by the user's own code and looked at before it is used."""

import logging
import os
from typing import TYPE_CHECKING

from hpo.errors import HpoError, UserError
from hpo.spec import Context, StudySpec, Trainer

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger("hpo")


def prepared(spec: StudySpec, context: Context) -> Trainer:
    """What a study's `prepare` makes.

    Raises:
        UserError: it raises, gives no trainer, or one that can't do what the study asks for.
    """
    try:
        trainer = spec.prepare(context)
    except HpoError:
        raise
    except Exception as error:  # the user's code: told as a fault of it, with the way there for who asks
        log.debug("prepare raised", exc_info=True)
        raise UserError(f"prepare of study {spec.name!r} raises {type(error).__name__}: {error}") from error
    made: object = trainer
    if not callable(getattr(made, "train", None)):
        raise UserError(
            f"prepare of study {spec.name!r} must return a trainer, an object with `train`, got {made!r:.80}"
        )
    if spec.reuse_epochs and not getattr(made, "continues_past_epochs", False):
        raise UserError(
            f"study {spec.name!r}: reuse_epochs needs a trainer whose epochs do not depend on how many there will be, "
            "and which says so: `continues_past_epochs = True`"
        )
    return trainer


def prepared_here(spec: StudySpec, *, device: str | None, data: str | None) -> Trainer:
    """A trainer for this process, with all cores, to be asked about what was trained.

    Raises:
        UserError: as `prepared`.
    """
    return prepared(spec, Context(device=device, data=data, threads=cores(), stop=lambda: False))


def prepared_for(spec: StudySpec, study: "Study", *, device: str | None, data: str | None) -> Trainer:
    """As `prepared_here`, to be asked about what a stored study has trained, on the same data, with the same network.

    Raises:
        UserError: they are not, or as `prepared`.
    """
    from hpo.notebook import study_id_of
    from hpo.resume import description_of, measured_otherwise, refuse, trained_otherwise

    study_id_of(study)  # made by this service
    trainer = prepared_here(spec, device=device, data=data)
    refuse(spec, [*measured_otherwise(spec, study), *trained_otherwise(study, description_of(trainer))])
    return trainer


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
