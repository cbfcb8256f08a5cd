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
from optuna.trial import FrozenTrial
from sqlalchemy import Engine

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
            "datetime_start": datetime.now(UTC).replace(tzinfo=None),
        }
        trial_id = int(connection.execute(sa.insert(_TRIALS).returning(_TRIALS.c.trial_id), row).scalar_one())
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
        return trial_id


def _attributes(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]
