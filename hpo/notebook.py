"""A study as scripts and notebooks see it: its trials as a table, its best one, that one's weights.

With `study = load_study("fer")` (`from hpo import load_study`): `study.trials` is a table with a row a trial,
`study.best` says which was best, and `study.best_weights()` gives its weights.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import optuna
import pandas as pd
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.errors import UserError
from hpo.leases import Leases
from hpo.names import DEFAULT_URL, OUTBOX, OVER
from hpo.options import size_of, study_name
from hpo.outbox import open_outbox
from hpo.plan import trials_less_kept
from hpo.schedulers.protocol import SECONDS, n_started, params_of
from hpo.spec import StudySpec
from hpo.storage import Store, existing_store, study_names
from hpo.storage import load_study as stored
from hpo.tracked import ranking
from hpo.urls import is_sqlite, sqlite_path

STUDY_ID = "hpo.study_id"
FACTS = "hpo.facts"
"""The study's attribute that keeps its declaration: space, seed, metric, what its trainer says of itself."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of a study.

    Attributes:
        number: the trial's.
        value: the trial's, in the study's metric.
        params: what its trainer got.
        weights: the files of its weights; none where they are not here (any more).
    """

    number: int
    value: float
    params: Mapping[str, Any]
    weights: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The file of its weights.

        Raises:
            UserError: it has none here, or none that ends in .safetensors.
        """
        files = [file for file in self.weights if file.suffix == ".safetensors"]
        if self.weights and not files:
            raise UserError(
                f"trial {self.number} is the best, and none of its weights' files is .safetensors: see weights"
            )
        if not files:
            raise UserError(f"trial {self.number} is the best, but its weights are not here; is workdir= another one?")
        return files[0]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedStudy:
    """A study as it was when it was loaded.

    Attributes:
        name: the study's.
        direction: `maximize` or `minimize`.
        metric: what a trial's value is.
        trials: one row a trial: `number`, `state`, `value` (none before its end), its params, `seconds` (of the
            device), `n_epochs`, `mlflow_run_id`, `reason` (why it was pruned or failed), `started`, `ended`. A param
            of the name of another column is `params.NAME`.
    """

    name: str
    direction: str
    metric: str
    trials: pd.DataFrame
    _best: Best | None

    @property
    def best(self) -> Best:
        """The best trial.

        Raises:
            UserError: no trial has a value yet.
        """
        if self._best is None:
            raise UserError(f"study {self.name!r}: no trial has a value yet")
        return self._best

    def best_weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """The best trial's weights by their names, as arrays; `best.path` is their file.

        Raises:
            UserError: no trial has a value yet, or the weights are not here, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.best.path
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not whole ({str(error).splitlines()[0]})") from None


def load_study(study: str, storage: str = DEFAULT_URL, workdir: str | Path = "trials") -> LoadedStudy:
    """Load a study, whether or not it is at work.

    Args:
        study: its name, or the `.py` file that declares it.
        storage: the Optuna store.
        workdir: the folder of the trials' files, as `hpo.run` had it.

    Raises:
        UserError: no such store, or no such study in it.
    """
    name = study_name(study)
    store = existing_store(storage)
    found = stored(store, name)
    trials = found.get_trials(deepcopy=False)
    spec = yardstick(found)
    folder = own_folder(found, Path(workdir))
    run_ids = _run_ids(found, store, trials)
    rows = [_row(t, run_ids.get(t.number)) for t in trials]
    table = pd.DataFrame(rows, columns=_columns(rows))
    best = _best(trials, spec, folder)
    store.engine.dispose()
    return LoadedStudy(name, spec.direction, spec.metric, table, best)


def yardstick(study: optuna.Study) -> StudySpec:
    """As much of a study's declaration as its store keeps, to rank its trials by: metric, value and direction.

    Raises:
        UserError: it has several objectives, as none of this service has.
    """
    if len(study.directions) != 1:
        raise UserError(f"study {study.study_name!r} has {len(study.directions)} objectives, need one")
    facts = study.user_attrs.get(FACTS, {})
    minimized = study.direction == StudyDirection.MINIMIZE
    return StudySpec(
        name="stored",
        suggest=_not_kept,
        prepare=_not_kept,
        metric=facts.get("metric", "value"),
        value=facts.get("value", "best"),
        direction="minimize" if minimized else "maximize",
    )


def study_id_of(study: optuna.Study) -> str:
    """By which a study is known to the service.

    Raises:
        UserError: it was made without it.
    """
    study_id = study.user_attrs.get(STUDY_ID)
    if study_id is None:
        raise UserError(f"study {study.study_name!r} was not made by hpo.run")
    return str(study_id)


def own_folder(study: optuna.Study, workdir: Path) -> Path | None:
    """The folder of a study's trials; None where it is not there, or that of another study of the same name."""
    study_id = str(study.user_attrs.get(STUDY_ID, ""))
    folder = workdir / study.study_name
    for place in (folder, folder.with_name(f"{folder.name}.before-{study_id[:8]}")):
        mark = place / ".study_id"
        if study_id and mark.is_file() and mark.read_text().strip() == study_id:
            return place
    return None


def _not_kept(_: Any) -> NoReturn:
    raise NotImplementedError


def _run_ids(study: optuna.Study, store: Store, trials: Sequence[FrozenTrial]) -> dict[int, str]:
    """MLflow's ids of the trials' runs: as the trials keep them, or, of those that don't, their outbox."""
    known = {t.number: str(t.user_attrs["mlflow.run_id"]) for t in trials if "mlflow.run_id" in t.user_attrs}
    study_id = study.user_attrs.get(STUDY_ID)
    beside = (sqlite_path(store.url).parent if is_sqlite(store.url) else Path.cwd()) / OUTBOX
    folder = next((f for f in (Path(OUTBOX), beside) if (f / f"{study_id}.db").is_file()), None)
    if folder is None or len(known) == len(trials):
        return known
    outbox = open_outbox(folder, str(study_id))
    for number in sorted({t.number for t in trials} - known.keys()):
        if run_id := outbox.run_id(str(number)):
            known[number] = run_id
    outbox.engine.dispose()
    return known


_BEFORE = ("number", "state", "value")
_AFTER = ("seconds", "n_epochs", "mlflow_run_id", "reason", "started", "ended")


def _row(trial: FrozenTrial, run_id: str | None) -> dict[str, Any]:
    params = {**trial.params, **params_of(trial)}
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": math.nan if trial.value is None else trial.value,
        **{f"params.{k}" if k in {*_BEFORE, *_AFTER} else k: value for k, value in params.items()},
        "seconds": float(trial.user_attrs.get(SECONDS, 0.0)),
        "n_epochs": len(trial.intermediate_values),
        "mlflow_run_id": run_id,
        "reason": trial.user_attrs.get("hpo.reason"),
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    fixed = {*_BEFORE, *_AFTER}
    params = dict.fromkeys(name for row in rows for name in row if name not in fixed)
    return [*_BEFORE, *params, *_AFTER]


def _best(trials: Sequence[FrozenTrial], spec: StudySpec, folder: Path | None) -> Best | None:
    ranked = ranking(spec, trials)
    if not ranked or ranked[0].value is None:
        return None
    number = ranked[0].number
    weights = sorted((folder / str(number) / "weights").rglob("*")) if folder is not None else []
    files = tuple(file.absolute() for file in weights if file.is_file())
    return Best(number, ranked[0].value, params_of(ranked[0]), files)


@dataclass(frozen=True, slots=True)
class Entry:
    """A study in the list: how far it is, what its best trial has, what was spent, and its files' size in bytes."""

    name: str
    state: str
    trials: Mapping[str, int]
    metric: str
    best_value: float | None
    best_trial: int | None
    epochs: int
    device_seconds: float
    bytes: int


def entries(store: Store, workdir: Path) -> Iterator[Entry]:
    """Every study of a store, by name."""
    leases = leases_of(store, workdir)
    for name in study_names(store):
        study = stored(store, name)
        trials, folder = study.get_trials(deepcopy=False), own_folder(study, workdir)
        ranked = ranking(yardstick(study), trials)[:1] if len(study.directions) == 1 else []
        yield Entry(
            name=name,
            state=state_of(study, trials, at_work=bool(live_in(leases, trials))),
            trials=dict(sorted(Counter(t.state.name for t in trials).items())),
            metric=study.user_attrs.get(FACTS, {}).get("metric", "value"),
            best_value=ranked[0].value if ranked else None,
            best_trial=ranked[0].number if ranked else None,
            epochs=sum(len(t.intermediate_values) for t in trials),
            device_seconds=round(sum(t.user_attrs.get(SECONDS, 0.0) for t in trials), 3),
            bytes=0 if folder is None else size_of(folder),
        )


def state_of(study: optuna.Study, trials: Sequence[FrozenTrial], *, at_work: bool) -> str:
    """How a study is: `running`, `done`, or `interrupted`: the same command goes on with it."""
    if at_work:
        return "running"
    over = study.user_attrs.get(OVER)
    if over is None or any(t.state.name == "RUNNING" for t in trials):
        return "interrupted"
    under = over["budget"][0]
    given = study.user_attrs.get("hpo.n_trials", under)
    more = under not in {given, trials_less_kept(given)} or (under is not None and n_started(trials) > under)
    return "interrupted" if more else "done"  # it went on under a greater budget, and was interrupted in that


def leases_of(store: Store, workdir: Path) -> Leases | None:
    """The leases beside a store; None where no worker was ever at it."""
    known = sqlalchemy.inspect(store.engine).has_table("hpo_leases")
    return Leases(store.engine, workdir / ".owners") if known else None


def live_in(leases: Leases | None, trials: Sequence[FrozenTrial]) -> list[int]:
    """Numbers of the trials that a worker is at."""
    running = {t._trial_id: t.number for t in trials if t.state.name == "RUNNING"}  # noqa: SLF001
    if leases is None or not running:
        return []
    free = leases.free_among(running)
    return sorted(number for trial_id, number in running.items() if trial_id not in free)
