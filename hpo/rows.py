"""A trial's rows in Optuna's tables, in few statements.

Optuna writes a trial that it is given whole attribute by attribute, each with two statements: thirty, while all other
workers wait for the study's lock. Its tables are private to it; a test holds what is written here beside what Optuna
itself writes.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine

_STUDIES, _TRIALS = models.StudyModel.__table__, models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_USER, _SYSTEM = models.TrialUserAttributeModel.__table__, models.TrialSystemAttributeModel.__table__


def add_trial(engine: Engine, study_id: int, template: FrozenTrial) -> int:
    """Add a trial that has params and attributes and no values yet; all of it, or nothing. Gives its id.

    Args:
        engine: of the Optuna store.
        study_id: Optuna's.
        template: its state, params, distributions and attributes are stored; it starts now.

    Raises:
        KeyError: there is no such study (any more).
    """
    with engine.begin() as connection:
        # As Optuna does: whoever adds another meanwhile, not under the store's lock, waits, and counts this one.
        study = sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id).with_for_update()
        if connection.scalar(study) is None:
            raise KeyError(f"no study of id {study_id}")
        count = sa.select(sa.func.count()).select_from(_TRIALS).where(_TRIALS.c.study_id == study_id)
        row = {
            "study_id": study_id,
            "number": connection.scalar(count),
            "state": template.state,
            "datetime_start": _now(),
        }
        trial_id = int(connection.execute(sa.insert(_TRIALS).returning(_TRIALS.c.trial_id), row).scalar_one())
        _add_parts(connection, trial_id, template)
        return trial_id


def fill_trial(engine: Engine, trial_id: int, template: FrozenTrial) -> bool:
    """Give a trial that waits, with or without params of its own, what was proposed for it, and let it run.

    All of it, or nothing.

    Args:
        engine: of the Optuna store.
        trial_id: of a trial that was enqueued.
        template: its params, distributions and attributes take the place of those of the same names.

    Returns:
        Whether it was waiting still: whoever asks by Optuna's own means may have taken it.
    """
    with engine.begin() as connection:
        waits = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == TrialState.WAITING)
        began = {"state": TrialState.RUNNING, "datetime_start": _now()}
        if connection.execute(sa.update(_TRIALS).where(waits).values(began)).rowcount == 0:
            return False
        for table, key, names in (
            (_PARAMS, _PARAMS.c.param_name, template.params),
            (_USER, _USER.c.key, template.user_attrs),
            (_SYSTEM, _SYSTEM.c.key, template.system_attrs),
        ):
            connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, key.in_(list(names))))
        _add_parts(connection, trial_id, template)
        return True


def _add_parts(connection: Connection, trial_id: int, template: FrozenTrial) -> None:
    params = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": template.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(template.distributions[name]),
        }
        for name, value in template.params.items()
    ]
    for table, rows in (
        (_PARAMS, params),
        (_USER, _attributes(trial_id, template.user_attrs)),
        (_SYSTEM, _attributes(trial_id, template.system_attrs)),
    ):
        if rows:
            connection.execute(sa.insert(table), rows)


def _now() -> datetime:
    """As Optuna stores it: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def _attributes(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]
