"""A store with as many finished trials as wanted, filled in bulk: by Optuna's own calls 10,000 take ten minutes."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from benchmarks.scaling.trivial import EPOCHS, NAME, STUDY, Trivial, suggest, value_of
from hpo.leases import Leases
from hpo.resume import open_study
from hpo.schedulers.protocol import DECISIONS, Step
from hpo.storage import Store

_BLOCK = 1_000


def fill(store: Store, n: int) -> None:
    """Give the trivial study `n` finished trials, as our service and Optuna would have left them."""
    with tempfile.TemporaryDirectory() as folder, store.lock():
        leases = Leases(store.engine, Path(folder))
        opened = open_study(STUDY, store, leases, Trivial(), Path(folder) / NAME, Path(folder), None)
    study_id = opened.study._study_id
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for start in range(0, n, _BLOCK):
        rows = [_row(sampler, study_id, number) for number in range(start, min(n, start + _BLOCK))]
        with store.engine.begin() as connection:
            for model, of in (
                (models.TrialModel, "trial"), (models.TrialParamModel, "params"), (models.TrialValueModel, "values"),
                (models.TrialIntermediateValueModel, "steps"), (models.TrialUserAttributeModel, "attrs"),
            ):  # fmt: skip
                found = [each for row in rows for each in row[of]]
                if found:
                    connection.execute(sa.insert(model.__table__), found)
    if store.engine.dialect.name == "postgresql" and n:  # ids were given: the next one must be a new one
        with store.engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), (SELECT max(trial_id) FROM trials))"
            )


def _row(sampler: optuna.Study, study_id: int, number: int) -> dict[str, list[dict[str, Any]]]:
    trial = sampler.ask()
    params = suggest(trial)
    now, trial_id = datetime.now(UTC).replace(tzinfo=None), number + 1
    distributions = trial.distributions
    values = [value_of(params, epoch) for epoch in range(EPOCHS)]
    sampler.tell(trial, values[-1])
    kept = {
        **params,
        "hpo.params": params,
        DECISIONS: [Step(number, number, 0, None, {}).to_json()],
        "hpo.seconds": 1.0,
    }
    return {
        "trial": [{
            "trial_id": trial_id, "number": number, "study_id": study_id, "state": TrialState.COMPLETE,
            "datetime_start": now, "datetime_complete": now,
        }],
        "params": [
            {
                "trial_id": trial_id, "param_name": name, "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": optuna.distributions.distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ],
        "values": [{
            "trial_id": trial_id, "objective": 0, "value": float(np.max(values)),
            "value_type": models.TrialValueModel.TrialValueType.FINITE,
        }],
        "steps": [
            {
                "trial_id": trial_id, "step": step, "intermediate_value": value,
                "intermediate_value_type": models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
            }
            for step, value in enumerate(values)
        ],
        "attrs": [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in kept.items()],
    }  # fmt: skip
