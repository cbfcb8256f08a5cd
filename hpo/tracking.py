"""MLflow: the only module that knows it (but for `studies/champion.py`). Takes from the outbox, tells the server.

`MlflowClient` with explicit run ids, never the fluent `mlflow.*`: that is global to the process, and marks a pruned
trial as a failure. Training never waits for anything here.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the outbox retries, for as long as it takes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import mlflow.store.artifact.artifact_repository_registry as artifact_repositories
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from hpo.errors import UserError, in_a_line
from hpo.outbox import PARENT, Item, Outbox
from hpo.redaction import redacted, through_the_root
from hpo.tracked import ARTIFACTS_URL

__all__ = ["MlflowClient", "MlflowException", "ModelVersion", "Tracker", "make_schema", "mlflow"]

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Lets the UI show it as model training, which it can't tell by itself."""
_POINTS_A_BATCH = 1_000
_PARAMS_A_BATCH = 100
_PARAM_LENGTH = 6_000

_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

log = logging.getLogger(__name__)
through_the_root("mlflow")
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it shows, trace and all, what it raises as well


@dataclass(slots=True)
class Tracker:
    """Tells MLflow what one study's outbox holds, in order, each thing once.

    Args:
        uri: as `open_uri` gave it.
        outbox: of the study.
        study: its name: the experiment's.
        study_id: the tag by which its runs are known among those of other people's studies of the same name.
        alone: held while the study's own run is looked for and made, so that machines that begin at once share one.
    """

    uri: str
    outbox: Outbox
    study: str
    study_id: str
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    problem: str | None = None
    """Why the last delivery failed; None while all goes well."""
    _client: MlflowClient = field(init=False)
    _experiment_id: str | None = None
    _moved_from: str | None = None
    _met: bool = False
    _made: set[str] = field(default_factory=set)
    _steps: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = MlflowClient(tracking_uri=self.uri)

    def deliver(self) -> None:
        """Deliver what waits, as far as it goes; `problem` says why it went no further."""
        try:
            if not self._met:
                for run, uri in self.outbox.known_runs().items():
                    if uri != self.uri:  # another server has heard of it; this one is told everything
                        self.outbox.set_run_id(run, None, self.uri)
                self._met = True
            for items in self._batches(self.outbox.waiting()):
                if not self._send(items):
                    break  # a run is made anew: what waits is another list now
            self.problem = None
        except UserError as error:
            self.problem = redacted(str(error))
        except Exception as error:  # whatever a transport raises: what waits stays, and is tried again
            self.problem = redacted(cause_of(error))

    def _batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Neighbours of one run that are all metrics go together; everything else by itself.

        Run by run, in the order in which they come, and the study's own so before its trials': of eight that train at a
        time each row would go alone, and what has gathered in an outage take minutes.
        """
        turn = {run: n for n, run in enumerate(dict.fromkeys(item.run for item in items))}
        by_run = sorted(items, key=lambda item: turn[item.run])
        for (_, kind), group in groupby(by_run, key=lambda item: (item.run, item.kind)):
            found = list(group)
            if kind != "metrics":
                yield from ([item] for item in found)
                continue
            batch: list[Item] = []
            size = 0
            for item in found:
                if batch and size + len(item.payload["metrics"]) > _POINTS_A_BATCH:
                    yield batch
                    batch, size = [], 0
                batch.append(item)
                size += len(item.payload["metrics"])
            yield batch

    def _send(self, items: list[Item]) -> bool:
        """Deliver some rows of one run; false where its run was found gone, and all of it waits again."""
        run, kind, ids = items[0].run, items[0].kind, [item.id for item in items]
        try:
            run_id = self.outbox.run_id(run)
            getattr(self, f"_send_{kind}")(run_id, items)
            self.outbox.mark_sent(ids)
        except MlflowException as error:
            text = str(error)
            gone = error.error_code in _GONE or "'active' state" in text or "lifecycle_stage" in text
            if gone and run_id is not None:
                self._forget(run, lost=error.error_code == "RESOURCE_DOES_NOT_EXIST")
                return False
            if gone:  # there is no such experiment any more, or it was deleted: the next try looks anew
                self._experiment_id = None
                raise
            if error.error_code not in _REFUSED:
                raise
            log.warning("MLflow refuses %s of %s: %s", kind, _words(run), text.splitlines()[0][:200])
            self.outbox.mark_sent(ids, refused=True)
        return True

    def _forget(self, run: str, *, lost: bool) -> None:
        """Let a run that is gone be made anew; and all others, where it is the study's, or MLflow has lost it."""
        if run != PARENT and not lost:
            log.warning("the MLflow run of %s was deleted: it is made anew", _words(run))
            self.outbox.set_run_id(run, None, self.uri)
            return
        # The others belong to it: those still there are found again by their tags, and told of the new parent.
        log.warning("MLflow no longer has the run of %s: what it lacks of this study is delivered anew", _words(run))
        self._experiment_id = None  # it may be gone, too
        for known in self.outbox.known_runs():
            self.outbox.set_run_id(known, None, self.uri)

    def _send_open(self, run_id: str | None, items: list[Item]) -> None:
        run, payload = items[0].run, items[0].payload
        if run_id is None:
            parent = {} if run == PARENT else {"mlflow.parentRunId": self._parent_id()}
            with self.alone() if run == PARENT else nullcontext():
                run_id = self._find(run)
                if run_id is None:
                    run_id = self._create(payload, parent, items[0].timestamp_ms)
                    self._made.add(run_id)
                elif parent:  # it may be of a parent that is gone
                    self._client.set_tag(run_id, *next(iter(parent.items())))
            self.outbox.set_run_id(run, run_id, self.uri)
        params = [Param(name, str(value)[:_PARAM_LENGTH]) for name, value in payload["params"].items()]
        for start in range(0, len(params), _PARAMS_A_BATCH):
            try:
                self._client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])
            except MlflowException as error:
                if error.error_code not in _REFUSED:
                    raise  # the run is there all the same: what follows belongs to it
                log.warning("MLflow refuses params of %s: %s", _words(run), str(error).splitlines()[0][:200])
        if payload["dataset"]:
            self._client.log_inputs(run_id, datasets=[_dataset_input(payload["dataset"])])

    def _find(self, run: str) -> str | None:
        found = self._client.search_runs([self._experiment()], its_run(self.study_id, run), max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, payload: Mapping[str, Any], parent: Mapping[str, str], timestamp_ms: int) -> str:
        tags = {**payload["tags"], **parent, "mlflow.note.content": payload["note"]}
        created = self._client.create_run(
            self._experiment(), start_time=timestamp_ms, tags=tags, run_name=payload["name"]
        )
        return str(created.info.run_id)

    def _parent_id(self) -> str:
        parent = self.outbox.run_id(PARENT)
        if parent is None:
            raise RuntimeError("the study's own run is not there yet")
        return parent

    def _send_metrics(self, run_id: str, items: list[Item]) -> None:
        points = [
            Metric(name, value, item.timestamp_ms, item.payload["step"])
            for item in items
            for name, value in item.payload["metrics"].items()
            if run_id in self._made or item.payload["step"] not in self._known_steps(run_id, name)
        ]
        if points:
            self._client.log_batch(run_id, metrics=points)

    def _known_steps(self, run_id: str, name: str) -> set[int]:
        """The steps of a metric that a run has already: another machine may have told them, or an outbox that is gone.

        Asked once for each metric of a run that was not made here; what is told from here on is told once anyway.
        """
        if (run_id, name) not in self._steps:
            history = self._client.get_metric_history(run_id, name)
            self._steps[run_id, name] = {point.step for point in history}
        return self._steps[run_id, name]

    def _send_tags(self, run_id: str, items: list[Item]) -> None:
        if "hpo.state" in items[0].payload and self._has_ended_since(run_id, items[0]):
            return
        place = f"#/experiments/{self._experiment()}/runs/{run_id}/artifacts"
        tags = {name: str(value).replace(ARTIFACTS_URL, place) for name, value in items[0].payload.items()}
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _send_status(self, run_id: str, items: list[Item]) -> None:
        status = items[0].payload["status"]
        if RunStatus.is_terminated(RunStatus.from_string(status)):
            if self._client.get_run(run_id).info.status != status:  # else another machine has told it, when it was so
                self._client.set_terminated(run_id, status, items[0].timestamp_ms)
        elif not self._has_ended_since(run_id, items[0]):
            self._client.update_run(run_id, status)

    def _has_ended_since(self, run_id: str, item: Item) -> bool:
        """Whether a run ended after a row was put: another machine went on with it, while the row could not be told."""
        info = self._client.get_run(run_id).info
        return RunStatus.is_terminated(RunStatus.from_string(info.status)) and (info.end_time or 0) >= item.timestamp_ms

    def _send_artifact(self, run_id: str, items: list[Item]) -> None:
        payload = items[0].payload
        if not Path(payload["file"]).is_file():
            if payload["folder"] != "weights":  # those of a trial that is no longer among the best are let go
                log.warning("%s of %s is gone: it can't be uploaded", payload["file"], _words(items[0].run))
            return
        self._artifacts(run_id).log_artifact(payload["file"], payload["folder"] or None)

    def _send_artifact_gone(self, run_id: str, items: list[Item]) -> None:
        self._artifacts(run_id).delete_artifacts(items[0].payload["folder"])

    def _artifacts(self, run_id: str) -> ArtifactRepository:
        """Where a run's artifacts lie: here, where MLflow still names a place that this folder was moved from."""
        self._experiment()
        uri = str(self._client.get_run(run_id).info.artifact_uri)
        if self._moved_from is not None and uri.startswith(self._moved_from):
            uri = f"{Path('mlruns').absolute()}{uri.removeprefix(self._moved_from)}"
        return artifact_repositories.get_artifact_repository(uri, tracking_uri=self.uri)

    def _experiment(self) -> str:
        if self._experiment_id is None:
            found = self._client.get_experiment_by_name(self.study)
            if found is None:
                try:
                    self._experiment_id = self._client.create_experiment(self.study, tags=EXPERIMENT_TAGS)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self._client.get_experiment_by_name(self.study)  # somebody else was quicker
            if found is not None and found.lifecycle_stage != "active":
                raise UserError(
                    f"the MLflow experiment {self.study!r} was deleted; bring it back with `mlflow experiments restore "
                    f"--experiment-id {found.experiment_id}`, or give the study a new name"
                )
            if found is not None:
                self._experiment_id = found.experiment_id
                self._note_if_moved(found.artifact_location)
        return str(self._experiment_id)

    def _note_if_moved(self, location: str) -> None:
        # MLflow keeps absolute paths: those of a working folder that was moved point to where it was.
        parts = urlsplit(location)
        then, now = Path(parts.path).parent, Path("mlruns").absolute()
        if parts.scheme in {"", "file"} and not then.is_dir() and then != now:
            self._moved_from = str(then)
            log.warning(
                "this folder was moved: MLflow looks for artifacts in %s; make them seen again with "
                "`mkdir -p %s && ln -s %s %s`", then, then.parent, now, then,
            )  # fmt: skip


def make_schema(path: Path) -> None:
    """Make the tables of MLflow's in a SQLite file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # on first use alone

    store = SqlAlchemyStore(f"sqlite:///{path}", "./mlruns")
    store.engine.dispose()


def its_run(study_id: str, run: str) -> str:
    """The search for a trial's run, or the study's own, in the study's experiment."""
    which = "tags.`hpo.kind` = 'study'" if run == PARENT else f"tags.`optuna.trial_number` = '{run}'"
    return f"tags.`hpo.study_id` = '{study_id}' and {which}"


def cause_of(error: BaseException) -> str:
    """What a failed delivery stems from, in a line: transports wrap their errors many times over."""
    reason = getattr(error, "reason", None)
    while (inner := error.__cause__ or error.__context__ or reason) is not None and inner is not error:
        if not isinstance(inner, BaseException):
            break
        error, reason = inner, getattr(inner, "reason", None)
    return in_a_line(error)


def _words(run: str) -> str:
    return "the study" if run == PARENT else f"trial {run}"


def _dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    import json

    profile = {name: value for name, value in dataset.items() if name not in {"name", "digest", "source"}}
    entity = Dataset(
        name=dataset["name"],
        digest=str(dataset["digest"])[:36],
        source_type="local",
        source=json.dumps({"uri": str(dataset.get("source", ""))}),
        profile=json.dumps(profile),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
