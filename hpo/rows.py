"""A trial's rows in Optuna's tables, in few statements.

Optuna writes a trial that it is given whole attribute by attribute, each with two statements: thirty, while all other
workers wait for the study's lock. And it reads a study through an object for each row, which takes ten times what the
trials take and is not given back. Its tables are private to it; tests hold what is written and read here beside what
Optuna itself writes and reads.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from sys import intern
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine

from hpo.sqlite import reading

T = TypeVar("T")

_STUDIES, _TRIALS = models.StudyModel.__table__, models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_USER, _SYSTEM = models.TrialUserAttributeModel.__table__, models.TrialSystemAttributeModel.__table__
_VALUES, _STEPS = models.TrialValueModel.__table__, models.TrialIntermediateValueModel.__table__
_VALUE = ("objective", "value", "value_type")
_STEP = ("step", "intermediate_value", "intermediate_value_type")
_value = models.TrialValueModel.stored_repr_to_value
_intermediate = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
_SLICE = 100
"""Trials that are read at once: more would only take memory, and a database takes so many parameters and no more."""


class RowStorage(RDBStorage):
    """Optuna's own, but for how it reads trials."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return read_trials(self.engine, study_id, states, included_trial_ids, trial_id_greater_than)


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


def read_trials(
    engine: Engine, study_id: int, states: Container[TrialState] | None, included: Collection[int], after: int
) -> list[FrozenTrial]:
    """A study's trials whose ids are included or greater than `after`, in the order of their ids.

    In SQLite as they all are at one moment; in PostgreSQL what a trial has is never older than its state.

    Args:
        engine: of the Optuna store.
        study_id: Optuna's.
        states: only trials of these; None for all.
        included: ids.
        after: an id; -1 for all trials.

    Raises:
        KeyError: there is no such study.
    """
    with reading(), engine.begin() as connection:
        if connection.scalar(sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id)) is None:
            raise KeyError(f"no study of id {study_id}")
        of_study = sa.select(_TRIALS).where(_TRIALS.c.study_id == study_id)
        queries = [of_study.where(_TRIALS.c.trial_id > after)]
        before = [trial_id for trial_id in included if trial_id <= after]
        queries += [of_study.where(_TRIALS.c.trial_id.in_(ids)) for ids in _slices(before)]
        rows = [row for query in queries for row in connection.execute(query)]
        rows = sorted((row for row in rows if states is None or row.state in states), key=lambda row: row.trial_id)
        distribution = functools.cache(json_to_distribution)  # trials share them: nobody changes one
        return [trial for part in _slices(rows) for trial in _frozen(connection, part, distribution)]


def _slices(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    return (whole[at : at + _SLICE] for at in range(0, len(whole), _SLICE))


def _frozen(
    connection: Connection, rows: Sequence[sa.Row[Any]], distribution: Callable[[str], BaseDistribution]
) -> Iterator[FrozenTrial]:
    """The trials of these rows, with what the other tables have of them."""
    ids = [row.trial_id for row in rows]

    def parts(table: sa.FromClause, *names: str) -> dict[int, list[tuple[Any, ...]]]:
        found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        columns = [table.c[name] for name in ("trial_id", *names)]
        query = sa.select(*columns).where(table.c.trial_id.in_(ids)).order_by(*table.primary_key)
        for row in connection.execute(query):
            found[row[0]].append(row[1:])
        return found

    params, values = parts(_PARAMS, "param_name", "param_value", "distribution_json"), parts(_VALUES, *_VALUE)
    steps, user, system = parts(_STEPS, *_STEP), parts(_USER, "key", "value_json"), parts(_SYSTEM, "key", "value_json")
    for row in rows:
        its = row.trial_id
        distributions = {intern(name): distribution(kind) for name, _, kind in params[its]}
        yield FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[_value(value, kind) for _, value, kind in sorted(values[its])] or None,
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            params={intern(name): distributions[name].to_external_repr(value) for name, value, _ in params[its]},
            distributions=distributions,
            user_attrs={intern(key): json.loads(value) for key, value in user[its]},
            system_attrs={intern(key): json.loads(value) for key, value in system[its]},
            intermediate_values={step: _intermediate(value, kind) for step, value, kind in steps[its]},
            trial_id=its,
        )


def _local(utc: datetime | None) -> datetime | None:
    """As Optuna gives it: local time, without saying so."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
