"""What the service says of a study and its trials: put into the outbox, in MLflow's terms, by whoever works on them."""

import csv
import io
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.commit import git_commit
from hpo.confirmation import Confirmation, read
from hpo.names import sibling_name
from hpo.outbox import PARENT, Outbox
from hpo.schedulers.protocol import params_of, was_paused
from hpo.spec import Metrics, Params, StudySpec
from hpo.times import total
from hpo.whole import write_whole

DEFAULT_URI = "sqlite:///mlflow.db"
"""Where runs are kept where nothing else is said: where `mlflow ui` looks, too."""

ARTIFACTS_URL = "{artifacts}"
"""What a description has in place of the address of its run's artifacts, which only MLflow knows."""

RUN_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
"""The one table of states: how an ended trial's run ends."""

_VOLATILE = ("_seconds", "_per_second")


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """Who a study is, apart from its name: two people may both have a study `fer`."""

    study_id: str
    name: str
    description: Mapping[str, Any]
    """What the trainer says of itself: data digest, network, device, data set."""


def open_parent(outbox: Outbox, identity: StudyIdentity, spec: StudySpec, store_url: str) -> None:
    """Let the study have its run."""
    tags = {
        **_common_tags(identity),
        "hpo.kind": "study",
        "hpo.direction": spec.direction,
        "hpo.metric": spec.metric,
        "hpo.store": store_url,
    }
    note = (
        f"Study **{spec.name}**: {spec.direction} the {spec.value} `{spec.metric}`.\n\nIts trials are the runs below."
    )
    payload = {"name": f"study {spec.name}", "tags": tags, "params": {}, "note": note, "dataset": _dataset(identity)}
    outbox.put(PARENT, "open", payload, once="open")


LEADERBOARD = "leaderboard.csv"
UPDATE_SECONDS = 30.0
"""Between two updates of the study's run while it is at work."""


def parent_status(outbox: Outbox, status: str, *, words: str) -> None:
    """Say how the study is: status is MLflow's."""
    outbox.put(PARENT, "tags", {"hpo.state": words})
    outbox.put(PARENT, "status", {"status": status})


def open_run(
    outbox: Outbox,
    identity: StudyIdentity,
    number: int,
    params: Params,
    suggested: Params,
    *,
    seed: int,
    attempt: int,
) -> None:
    """Let a trial have its run, or let the run that it has go on."""
    tags = {
        **_common_tags(identity),
        "optuna.trial_number": str(number),
        "hpo.seed": str(seed),
    }
    note = f"Trial {number} of study **{identity.name}**.\n\n" + "\n".join(f"- {k}: `{v}`" for k, v in params.items())
    payload = {
        "name": run_name(number, params),
        "tags": tags,
        "params": {**suggested, **params},
        "note": note,
        "dataset": _dataset(identity),
    }
    run = str(number)
    outbox.put(run, "open", payload, once="open")
    outbox.put(run, "tags", {"hpo.attempt": str(attempt), "optuna.state": "RUNNING", "hpo.state": "running"})
    outbox.put(run, "status", {"status": "RUNNING"})


def log_epoch(outbox: Outbox, number: int, epoch: int, metrics: Metrics) -> list[str]:
    """Keep an epoch's metrics; the first of an epoch count. Gives the names whose values differ from those."""
    before = outbox.put(str(number), "metrics", {"step": epoch, "metrics": dict(metrics)}, once=f"epoch:{epoch}")
    if before is None:
        return []
    known = before["metrics"]
    return [k for k, v in metrics.items() if not k.endswith(_VOLATILE) and k in known and known[k] != v]


def log_tags(outbox: Outbox, number: int, tags: Mapping[str, str]) -> None:
    """Note on a trial's run what its trainer has to say of it."""
    if tags:
        outbox.put(str(number), "tags", dict(tags))


def log_times(outbox: Outbox, number: int, n_epochs: int, seconds: Mapping[str, float], *, attempt: int) -> None:
    """Keep what a trial has taken in all, by kind, as it is laid down for the so-many-th time."""
    metrics = {f"time.{kind}": value for kind, value in seconds.items()}
    outbox.put(str(number), "metrics", {"step": n_epochs, "metrics": metrics}, once=f"times:{attempt}")


def log_value(outbox: Outbox, number: int, spec: StudySpec, value: float, n_epochs: int) -> None:
    """Keep a trial's value, by which trials are ordered: a metric alone has its last epoch's in a table."""
    metrics = {f"best_{spec.metric}": value}
    outbox.put(str(number), "metrics", {"step": n_epochs, "metrics": metrics}, once=f"value:{n_epochs}")


def rest_run(outbox: Outbox, number: int, words: str) -> None:
    """Say that a trial is at rest: interrupted, or paused; one that has no run yet will get it when it goes on."""
    if not outbox.knows(str(number)):
        return
    outbox.put(str(number), "tags", {"hpo.state": words})
    outbox.put(str(number), "status", {"status": "SCHEDULED"})


def end_run(outbox: Outbox, number: int, state: TrialState, *, reason: str | None, artifacts: Path) -> None:
    """Hand over a trial's artifacts, and say how it ended."""
    run = str(number)
    for file in sorted(p for p in artifacts.rglob("*") if p.is_file()) if artifacts.is_dir() else ():
        folder = file.parent.relative_to(artifacts).as_posix()
        put_artifact(outbox, run, file, "" if folder == "." else folder)
    log_end(outbox, number, state, reason)


def log_end(outbox: Outbox, number: int, state: TrialState, reason: str | None) -> None:
    """Say how a trial ended."""
    run = str(number)
    tags = {"optuna.state": state.name, "hpo.state": state.name.lower()}
    outbox.put(run, "tags", {**tags, **({"hpo.reason": reason[:4000]} if reason else {})})
    # Not once: a kill before Optuna is told lets the trial go on, and its run with it, before it ends again.
    outbox.put(run, "status", {"status": RUN_STATUS[state]})


def put_artifact(outbox: Outbox, run: str, file: Path, folder: str = "") -> None:
    """Hand over a file by reference; it must stay until MLflow has it."""
    outbox.put(run, "artifact", {"file": os.path.relpath(file), "folder": folder})


def is_due(folder: Path) -> bool:
    """Whether the study's run is to be brought up to date again: it takes a look at all trials."""
    try:
        age = time.time() - (folder / LEADERBOARD).stat().st_mtime
    except OSError:
        return True
    return not 0 <= age < UPDATE_SECONDS


def log_best(
    outbox: Outbox, spec: StudySpec, trials: Sequence[FrozenTrial], folder: Path, words: str = "running"
) -> None:
    """Bring the study's run up to date: best value and number, the leaderboard, its description, with `words`."""
    ended = [t for t in trials if t.state.is_finished()]
    ranked = ranking(spec, trials)
    metrics = {f"time.{kind}": value for kind, value in total(trials).items()}
    outbox.put(PARENT, "metrics", {"step": len(ended), "metrics": metrics}, once=f"times:{len(ended)}")
    if ranked:
        best = ranked[0]
        found = {f"best_{spec.metric}": best.value, "best_trial": float(best.number)}
        outbox.put(PARENT, "metrics", {"step": len(ended), "metrics": found}, once=f"best:{len(ended)}")
        outbox.put(PARENT, "tags", {"hpo.best_trial": str(best.number), "hpo.best_value": repr(best.value)})
    describe_study(outbox, spec, trials, folder, words)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LEADERBOARD, leaderboard(spec, trials).encode())
    put_artifact(outbox, PARENT, folder / LEADERBOARD)


def log_confirmation(outbox: Outbox, said: Confirmation, file: Path, *, step: int) -> None:
    """Keep with the study's run what was confirmed of it; the step counts the claims, of which the last one holds."""
    found = {f"confirmed_{said.metric}": said.best.estimate.mean}
    if said.test is not None:
        found[f"test_{said.test.metric}"] = said.test.estimate.mean
    outbox.put(PARENT, "metrics", {"step": step, "metrics": found}, once=f"confirmed:{step}")
    outbox.put(PARENT, "tags", {"hpo.confirmed_trial": str(said.best.trial)})
    put_artifact(outbox, PARENT, file)


def describe_study(outbox: Outbox, spec: StudySpec, trials: Sequence[FrozenTrial], folder: Path, words: str) -> None:
    """Bring the description of the study's run up to date: its state, its best, what is confirmed, the report.

    Args:
        outbox: of the study.
        spec: of the study.
        trials: all of them.
        folder: `trials/<study>`.
        words: its state.
    """
    n_ended = sum(t.state.is_finished() for t in trials)
    parts = [f"Study **{spec.name}**, {words}: {spec.direction} the {spec.value} `{spec.metric}`."]
    if ranked := ranking(spec, trials):
        best = ranked[0]
        params = "\n".join(f"- {k}: `{v}`" for k, v in params_of(best).items())
        parts.append(f"Best of {n_ended} ended trials: **{best.value:.4f}**, trial {best.number}, with\n\n{params}")
    mark = folder / ".study_id"
    study_id = mark.read_text().strip() if mark.exists() else ""
    if (said := read(folder.with_name(sibling_name(folder.name)), study_id)) is not None:
        from hpo.report_claim import confirmed  # which knows this module

        parts.append("Confirmed on fresh seeds:\n\n" + "\n".join(f"- {sentence}" for sentence in confirmed(said)))
    if Path(report := f"{spec.name}-report.html").exists():
        parts.append(f"[The report]({ARTIFACTS_URL}/{report}), among the artifacts of this run.")
    parts.append("`leaderboard.csv` among the artifacts has all trials.")
    outbox.put(PARENT, "tags", {"mlflow.note.content": "\n\n".join(parts)})


def ranking(spec: StudySpec, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials whose values count, best first; of equal ones the earlier first.

    Those that are complete, and those that their scheduler had only paused when the study ended.
    """
    return sorted(counted(trials), key=lambda t: rank(spec, t.value or 0.0, t.number))


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials whose values count."""
    return [t for t in trials if (t.state == TrialState.COMPLETE or was_paused(t)) and t.value is not None]


def rank(spec: StudySpec, value: float, number: int) -> tuple[float, int]:
    """What trials are ordered by, best first."""
    return -spec.sign * value, number


def leaderboard(spec: StudySpec, trials: Sequence[FrozenTrial]) -> str:
    """All ended trials as csv, the ranked ones first."""
    ranked = ranking(spec, trials)
    numbers = {t.number for t in ranked}
    others = [t for t in trials if t.state.is_finished() and t.number not in numbers]
    names = list(dict.fromkeys(name for t in [*ranked, *others] for name in params_of(t)))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["rank", "trial", "state", f"{spec.value}_{spec.metric}", "n_epochs", *names])
    for rank, t in [*enumerate(ranked, start=1), *(("", t) for t in others)]:
        params = params_of(t)
        value = "" if t.value is None else repr(t.value)
        epochs = len(t.intermediate_values)
        writer.writerow([rank, t.number, t.state.name, value, epochs, *(params.get(name, "") for name in names)])
    return stream.getvalue()


def run_name(number: int, params: Params) -> str:
    """A name by which a person knows a trial in a list: `#12 adam lr=0.0008 bs=64`."""
    words = []
    for name, value in list(params.items())[:3]:
        short = "".join(part[0] for part in name.split("_") if part) if "_" in name else name
        if isinstance(value, str):
            words.append(value)
        else:
            words.append(f"{short}={value:.2g}" if isinstance(value, float) else f"{short}={value}")
    return " ".join([f"#{number}", *words])[:250]


def finite(metrics: Metrics) -> dict[str, float]:
    """The metrics that are finite numbers."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _common_tags(identity: StudyIdentity) -> dict[str, str]:
    tags = {
        "hpo.study_id": identity.study_id,
        "optuna.study": identity.name,
        "hpo.host": platform.node(),
        "hpo.python": platform.python_version(),
    }
    tags |= _versions()
    for name in ("data_digest", "network", "augmentation", "device"):
        if name in identity.description:
            tags[f"hpo.{name}"] = str(identity.description[name])
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    return tags


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "optuna", "mlflow", "numpy", "fer-hpo"):
        with suppress(PackageNotFoundError):
            found[f"hpo.version.{package}"] = version(package)
    return found


def _dataset(identity: StudyIdentity) -> dict[str, Any] | None:
    dataset = identity.description.get("dataset")
    return dict(dataset) if isinstance(dataset, Mapping) else None
