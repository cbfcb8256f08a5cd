"""What a report gathers of a study before anything is drawn: trials, the confirmed result, what reproduces it."""

import json
import logging
import platform
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna import Study
from optuna.trial import FrozenTrial

from hpo import confirmation
from hpo.commit import git_commit
from hpo.confirmation import Confirmation
from hpo.names import OVER, sibling_name
from hpo.notebook import own_folder, state_of
from hpo.options import command
from hpo.outbox import PARENT, Outbox
from hpo.plan import affordable, budget_of, kept_budget
from hpo.report_values import NONE, Table
from hpo.spec import StudySpec
from hpo.tracked import ranking

log = logging.getLogger("hpo")

MAX_FAILURES = 100
_PACKAGES = ("torch", "optuna", "mlflow", "numpy", "fer-hpo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the page rests on.

    Attributes:
        spec: of the study.
        study: what `--study` named.
        trials: all of them.
        ranked: those whose values count, best first.
        confirmation: None where nothing is confirmed.
        attrs: what the service keeps on the study.
        tags: of the run that is to be reproduced; empty where this folder has no outbox of the study.
        dataset: as MLflow has it; empty likewise.
        options: of the command line.
        folder: of the study's trials; None where it is not here.
        is_done: whether the search is at its end, under the budget that it has by now.
    """

    spec: StudySpec
    study: str
    trials: Sequence[FrozenTrial]
    ranked: Sequence[FrozenTrial]
    confirmation: Confirmation | None
    attrs: Mapping[str, Any]
    tags: Mapping[str, str]
    dataset: Mapping[str, Any]
    options: Namespace
    folder: Path | None
    is_done: bool


def gather(spec: StudySpec, study: Study, outbox: Outbox | None, options: Namespace) -> Facts:
    """Read what there is."""
    trials = study.get_trials(deepcopy=False)
    ranked = ranking(spec, trials)
    said = confirmation.read(confirmed_folder(spec, options), study.user_attrs.get("hpo.study_id", ""))
    best = _best_number(said, ranked)
    opened = {} if outbox is None else _opened(outbox, [*([] if best is None else [str(best)]), PARENT])
    return Facts(
        spec=spec,
        study=options.study,
        trials=trials,
        ranked=ranked,
        confirmation=said,
        attrs=study.user_attrs,
        tags=opened.get("tags") or {},
        dataset=opened.get("dataset") or {},
        options=options,
        folder=own_folder(study, Path(options.workdir)),
        is_done=state_of(study, trials, at_work=False) == "done",
    )


def _best_number(said: Confirmation | None, ranked: Sequence[FrozenTrial]) -> int | None:
    """Number of the search's trial whose configuration is best."""
    if said is not None:
        return said.best.trial
    return ranked[0].number if ranked else None


def confirmed_folder(spec: StudySpec, options: Namespace) -> Path:
    """Where the confirming study has its trials, and its result."""
    return Path(options.workdir) / sibling_name(spec.name)


def best_folder(facts: Facts) -> Path | None:
    """The folder of the trial whose network is best."""
    if facts.confirmation is not None:
        return confirmed_folder(facts.spec, facts.options) / str(facts.confirmation.champion)
    if facts.ranked and facts.folder is not None:
        return facts.folder / str(facts.ranked[0].number)
    return None


def _opened(outbox: Outbox, runs: Sequence[str]) -> Mapping[str, Any]:
    """With what the first of these runs that is there was opened in MLflow."""
    query = sa.text("SELECT payload FROM items WHERE run = :run AND once = 'open'")
    with outbox.engine.begin() as connection:
        for run in runs:
            if (payload := connection.scalar(query, {"run": run})) is not None:
                found = json.loads(payload)
                return found if isinstance(found, Mapping) else {}
    return {}


def failures_table(trials: Sequence[FrozenTrial]) -> Table | None:
    """The trials that failed, each with its reason."""
    failed = [t for t in trials if t.state.name == "FAIL"]
    if not failed:
        return None
    rows = [[str(t.number), str(t.user_attrs.get("hpo.reason") or "no reason is noted")] for t in failed[:MAX_FAILURES]]
    more = len(failed) - len(rows)
    return Table(["trial", "reason"], rows, f"And {more} more." if more else "")


def run_commands(facts: Facts) -> list[str]:
    """The commands that make the same study anew, in an empty folder, and confirm it likewise."""
    budget, said = facts.attrs.get("hpo.n_trials"), facts.confirmation
    flags = [] if budget is None else ["--trials", str(budget)]
    n_trials = facts.spec.n_trials if budget is None else budget
    kept = kept_budget(facts.spec, n_trials)
    if facts.attrs.get(OVER, {}).get("budget") == kept != budget_of(facts.spec, n_trials):
        ran = command("hpo.run", facts.study, facts.options, *flags, "--confirm")
        if said is None or (said.top, said.n_seeds) == affordable(facts.spec, n_trials, facts.trials):
            return [ran]
    else:
        ran = command("hpo.run", facts.study, facts.options, *flags)
    return [ran] if said is None else [ran, confirm_command(facts)]


def confirm_command(facts: Facts) -> str:
    """The command that trains the study's best configurations anew: as it was done, where it was."""
    said = facts.confirmation
    flags = [] if said is None or not said.top else ["--top", str(said.top), "--seeds", str(said.n_seeds)]
    return command("hpo.confirm", facts.study, facts.options, *flags)


def reproduction_table(facts: Facts) -> Table:
    """Versions, seed, data, commit, machine: as the best trial's run has noted them, else as they are here and now."""
    return Table(["", ""], list(_reproduction(facts)), "" if facts.tags else _NOW)


_NOW = "This folder has no outbox of the study: versions, commit and machine are those of this report's command."


def _reproduction(facts: Facts) -> Iterator[list[str]]:
    tags, known = facts.tags, facts.attrs.get("hpo.facts") or {}
    trainer: Mapping[str, Any] = known.get("trainer") or {}
    yield ["study seed", str(known.get("seed", facts.spec.seed))]
    if "hpo.seed" in tags:
        yield [f"seed of trial {_best_number(facts.confirmation, facts.ranked)}", tags["hpo.seed"]]
    yield ["study id", str(facts.attrs.get("hpo.study_id", NONE))]
    if facts.dataset:
        split = f", split {facts.dataset['split']}" if facts.dataset.get("split") else ""
        yield ["data set", f"{facts.dataset.get('name', NONE)}{split}"]
    yield ["data digest", str(tags.get("hpo.data_digest") or trainer.get("data_digest") or NONE)]
    for name, value in trainer.items():
        if name not in {"data_digest", "class_names"}:
            yield [name, str(value)]
    yield ["device", tags.get("hpo.device", NONE)]
    yield ["machine", tags.get("hpo.host") or platform.node()]
    yield ["git commit", tags.get("mlflow.source.git.commit") or ("" if tags else git_commit()) or NONE]
    yield ["python", tags.get("hpo.python") or platform.python_version()]
    for package in _PACKAGES:
        yield [package, tags.get(f"hpo.version.{package}") or _version(package)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NONE
