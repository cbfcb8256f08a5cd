"""What MLflow has been told, or is yet to be, on disk. Training puts here and never waits for a server.

One SQLite file a study. Rows and references only: artifacts stay where they are. A row put with a name (`once`) is
kept the first time and ignored later, so that an epoch trained again after a crash is not logged again. Rows stay when
MLflow has them: a server that has lost them, or another one, is told everything anew.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.dialects.sqlite import insert

from hpo.sqlite import make_once, refuse_network, sqlite_engine

Kind = Literal["open", "metrics", "tags", "status", "artifact", "artifact_gone"]

_WAITING, _SENT, _REFUSED = 0, 1, 2

_metadata = sa.MetaData()
_items = sa.Table(
    "items",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("once", sa.String, nullable=True),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Integer, nullable=False, index=True),
    sa.UniqueConstraint("run", "once"),
)
_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("run_id", sa.String, nullable=True),
    sa.Column("tracking_uri", sa.String, nullable=True),
)

PARENT = "study"
"""The key of the study's own run; a trial's is its number."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row: what is to be told about which run, and when it happened (milliseconds since 1970)."""

    id: int
    run: str
    kind: Kind
    payload: Any
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """The rows of one study on their way to MLflow."""

    engine: Engine

    def put(self, run: str, kind: Kind, payload: Mapping[str, Any], once: str | None = None) -> Any | None:
        """Put one row, on disk when this returns.

        Args:
            run: `PARENT` or a trial's number.
            kind: what the payload is.
            payload: JSON.
            once: a name that a run has once; a second row of the same name is not kept.

        Returns:
            None where the row was kept, else the payload of the row that was there before.
        """
        values = {"run": run, "kind": kind, "once": once, "payload": dict(payload)}
        with self.engine.begin() as connection:
            row = insert(_items).values(**values, timestamp_ms=now_ms(), state=_WAITING).on_conflict_do_nothing()
            if connection.execute(row).rowcount == 1:
                return None
            return connection.scalar(sa.select(_items.c.payload).where(_items.c.run == run, _items.c.once == once))

    def waiting(self, limit: int = 500) -> list[Item]:
        """The first rows that MLflow does not have yet, in the order in which they were put."""
        columns = (_items.c.id, _items.c.run, _items.c.kind, _items.c.payload, _items.c.timestamp_ms)
        query = sa.select(*columns).where(_items.c.state == _WAITING).order_by(_items.c.id).limit(limit)
        with self.engine.begin() as connection:
            return [Item(*row) for row in connection.execute(query)]

    def n_waiting(self) -> int:
        """How many rows MLflow does not have yet."""
        return self._n_in(_WAITING)

    def n_refused(self) -> int:
        """How many rows MLflow will never take."""
        return self._n_in(_REFUSED)

    def _n_in(self, state: int) -> int:
        with self.engine.begin() as connection:
            query = sa.select(sa.func.count()).select_from(_items).where(_items.c.state == state)
            return connection.scalar(query) or 0

    def mark_sent(self, ids: Sequence[int], *, refused: bool = False) -> None:
        """Note that MLflow has these rows, or will never take them."""
        with self.engine.begin() as connection:
            state = _REFUSED if refused else _SENT
            connection.execute(_items.update().where(_items.c.id.in_(ids)).values(state=state))

    def knows(self, run: str) -> bool:
        """Whether anything was ever put for a run."""
        with self.engine.begin() as connection:
            query = sa.select(sa.func.count()).select_from(_items).where(_items.c.run == run)
            return bool(connection.scalar(query))

    def strangers(self, runs: Collection[str]) -> list[str]:
        """Those of which nothing was ever put here."""
        with self.engine.begin() as connection:
            known = set(connection.scalars(sa.select(_items.c.run).distinct()))
        return [run for run in runs if run not in known]

    def unended(self) -> list[str]:
        """Trials whose run is not told to have ended, as far as this outbox goes."""
        told = sa.select(sa.func.max(_items.c.id)).where(_items.c.kind == "status", _items.c.run != PARENT)
        with self.engine.begin() as connection:
            rows = connection.execute(
                sa.select(_items.c.run, _items.c.payload).where(_items.c.id.in_(told.group_by(_items.c.run)))
            )
            return [row.run for row in rows if row.payload["status"] in {"RUNNING", "SCHEDULED"}]

    def run_id(self, run: str) -> str | None:
        """MLflow's id of a run, where it has one by now."""
        with self.engine.begin() as connection:
            return connection.scalar(sa.select(_runs.c.run_id).where(_runs.c.run == run))

    def set_run_id(self, run: str, run_id: str | None, tracking_uri: str) -> None:
        """Note MLflow's id of a run; None forgets it, and everything kept of the run waits again."""
        with self.engine.begin() as connection:
            values = {"run_id": run_id, "tracking_uri": tracking_uri}
            statement = insert(_runs).values(run=run, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["run"], set_=values))
            if run_id is None:
                connection.execute(_items.update().where(_items.c.run == run).values(state=_WAITING))

    def known_runs(self) -> dict[str, str]:
        """Runs that have an id in MLflow, with the tracking URI where they have it."""
        query = sa.select(_runs.c.run, _runs.c.tracking_uri).where(_runs.c.run_id.is_not(None))
        with self.engine.begin() as connection:
            return {row.run: row.tracking_uri for row in connection.execute(query)}


def open_outbox(folder: Path, study_id: str) -> Outbox:
    """Open a study's outbox in `folder`, made where it is missing; safe when many processes do so at once.

    It goes by the study's id: another study of the same name has runs of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"{study_id}.db").absolute()
    refuse_network(path)
    make_once(path, _make_schema)
    return Outbox(sqlite_engine(path))


def _make_schema(path: Path) -> None:
    engine = sqlite_engine(path)
    _metadata.create_all(engine)
    engine.dispose()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
