"""The one seam: what a study declares, and what a trainer is. Importing this module, or a study, does no I/O."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hpo.errors import UserError

if TYPE_CHECKING:  # optuna takes 0.2 s to import, and `--help` needs none of it
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Params = Mapping[str, Any]
Metrics = Mapping[str, float]
Suggest = Callable[[Any], Params]
"""A function of an Optuna trial: calls `trial.suggest_*` and returns the params that the trainer gets."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(-confirm)?")  # the last of the study that confirms it
SAMPLERS = ("tpe", "gp", "random", "grid", "qmc")
PRUNERS = ("none", "median", "asha", "hyperband", "patience")
SCHEDULERS = ("auto", "optuna", "asha", "freeze_thaw")
PAUSING = ("auto", "asha", "freeze_thaw")
"""Schedulers that pause trials: they need to know how long one may be."""
MAX_TRIALS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a trainer is prepared with, once for each trial that runs at a time.

    Attributes:
        device: name of a device, or None for the best one.
        data: where the data are, or None for the study's own default.
        threads: CPU threads that are its own.
        workers: how many trials at a time share the device and its memory.
        stop: true when training is to end: to be asked before every batch.
        owned: false when the trial has another owner by now: to be asked before anything in its folder is replaced. A
            machine that stood still for a while, or was cut off, would else write over what its successor has trained.
    """

    device: str | None
    data: str | None
    threads: int
    stop: Callable[[], bool]
    workers: int = 1
    owned: Callable[[], bool] = lambda: True


class Trainer(Protocol):
    """What trains. Called with equal arguments it yields equal metrics, whatever interrupted it in between.

    Optional methods, used where they are there:

    - `describe() -> Mapping`: what a resume compares: `data_digest`, `network`, `class_names` and others of your own;
      `device` and `dataset` are noted and not compared.
    - `estimate(candidates) -> Mapping`: what trials need here, of a sequence of params that may come: the least and the
      most of `epoch_seconds`, `memory` (bytes) and `checkpoint` (bytes), each a pair.
    - `side_by_side(candidates) -> Iterable`: pairs of a number of trials at a time, growing from 1, and of what those
      train in a second all together, in threads of one process; measured as they are asked for.
    - `check(params)`: raises ValueError before any trial runs.
    - `export(workdir, path)`: writes the best network of the trial in `workdir` as `path`, of the kind its suffix says;
      ValueError for a kind that it can't. Without it there is no champion and `hpo.export` has nothing to write.
    - `review(workdir) -> Sequence[Mapping]`: sections of a report about that network: `title`, and where wanted `text`,
      `columns`, `rows`, `pictures` (names of files in `workdir/review`).
    - `faults(workdir) -> Iterable[str]`: what is damaged of a trial's files, in words; `hpo.doctor` asks for it.
    - `tags() -> Mapping`: what is to be noted of the trial that was trained last: tags of its run.
    - `seconds() -> Mapping`: how much of the time of all calls so far was no training: `validation`, `checkpoint`.

    An optional attribute, `continues_past_epochs`: true where an epoch does not depend on the param `epochs`, so that
    `reuse_epochs` can go on from another trial's checkpoints, or yield the first of its epochs.
    """

    def train(self, params: Params, *, seed: int, workdir: Path) -> Iterator[Metrics]:
        """Train one trial: yield a metrics mapping an epoch, epochs counted from 0.

        Called again with the same `workdir` after any interruption it first yields the recorded epochs, then goes on
        from its last checkpoint. It looks at `context.stop()` every batch; true means: keep what must be kept and
        return. Closing the generator means the same. A value that is not finite is yielded, and ends it. Where
        `context.owned()` is false nothing is to be kept.

        Of what it leaves in `workdir`, `artifacts/` is uploaded, `weights/` is kept and uploaded for the best trials,
        and `checkpoints/` goes when the trial ends.
        """
        ...

    def evaluate(self, workdir: Path, split: str) -> Metrics:
        """Score the best weights of the trial in `workdir` on a split; ValueError where the data have no such split."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """What is searched, and how.

    Attributes:
        name: of the Optuna study and the MLflow experiment; [A-Za-z0-9][A-Za-z0-9._-]{0,63}.
        suggest: the search space, define-by-run: calls `trial.suggest_*`, returns the trainer's params.
        prepare: makes a trainer, once for each trial that runs at a time, in a thread of its own where there are more.
        metric: the metric that is optimized, one that the trainer yields.
        direction: whether more or less of it is better.
        value: a trial's value: its `best` or its `last` epoch's metric.
        n_trials: how many trials may be started that do not fail; None for no bound.
        timeout_seconds: device seconds that all trials may take; None for no bound.
        n_epochs: how many epochs may be trained in all; None for no bound.
        max_epochs: the longest a trial may run; Hyperband needs it, and a scheduler that pauses.
        sampler: one of `SAMPLERS`, or a function of a seed that returns an Optuna sampler.
        sampler_trials: how many trials a sampler sees of a study that has more than 1,000: a fifth of them the best,
            the others the latest, and those at work besides. None: always all.
        pruner: one of `PRUNERS`, or a function of a seed that returns an Optuna pruner.
        scheduler: one of `SCHEDULERS`, or a function of this specification that returns a scheduler of one's own.
        enqueue: known configurations to try first, in the suggested names; the first is the baseline.
        seed: of the whole study.
        seed_by: a suggested name: trials with the same value of it share their seed; by default each has its own.
        retries: how often a trial that raised is run again before it counts as failed.
        keep_weights: how many of the best trials keep their weights, here and in MLflow.
        checkpoint_bytes: most bytes that paused trials may keep on the disk; None for no bound. What is over is let go
            of, and trained again if it is needed; the weights of the best few stay.
        reuse_epochs: whether trials that differ in `epochs` alone share their seed and their training: the longer goes
            on from the other's checkpoints, which stay.
        step_cost: what a scheduler weighs a step by.
        draw: draws what people look at into `artifacts/` of a trial's folder, once it has ended. The launcher calls
            it, while the next trial trains; a pause needs no picture.
        summarize: turns the study's finished trials into lines that `hpo.run` prints at the end.

    Raises:
        SpecError: values that can't be; all of them at once.
    """

    name: str
    suggest: Suggest
    prepare: Callable[[Context], Trainer]
    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    value: Literal["best", "last"] = "best"
    n_trials: int | None = 100
    timeout_seconds: float | None = None
    n_epochs: int | None = None
    max_epochs: int | None = None
    sampler: "str | Callable[[int], BaseSampler]" = "tpe"
    sampler_trials: int | None = 300
    pruner: "str | Callable[[int], BasePruner]" = "none"
    scheduler: "str | Callable[[StudySpec], Any]" = "optuna"
    enqueue: Sequence[Params] = ()
    seed: int = 0
    seed_by: str | None = None
    retries: int = 0
    keep_weights: int = 5
    checkpoint_bytes: int | None = None
    reuse_epochs: bool = False
    step_cost: Literal["epochs", "seconds"] = "epochs"
    draw: Callable[[Path], None] | None = None
    summarize: "Callable[[Sequence[FrozenTrial]], Sequence[str]] | None" = None

    def __post_init__(self) -> None:
        faults = dict(_faults(self))
        if faults:
            raise SpecError(faults)

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that more is better."""
        return 1.0 if self.direction == "maximize" else -1.0

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other` in this study's direction."""
        return self.sign * value > self.sign * other


FIELDS = tuple(field.name for field in fields(StudySpec))


class SpecError(UserError):
    """A specification's faults: field -> what is wrong with it."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{name} {fault}" for name, fault in faults.items()))
        self.faults = dict(faults)


def check_name(name: object) -> str | None:
    """What is wrong with a study's name, or None. It becomes a folder: `CON` and others can't be one everywhere."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        return f"must match [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}, got {name!r:.80}"
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
    if name.split(".")[0].lower() in reserved or name.endswith("."):
        return f"is no name of a folder on every system, got {name!r}"
    return None


def _faults(spec: StudySpec) -> Iterator[tuple[str, str]]:
    if fault := check_name(spec.name):
        yield "name", fault
    yield from _function_faults(spec)
    yield from _choice_faults(spec)
    yield from _number_faults(spec)
    metric: object = spec.metric
    if not isinstance(metric, str) or not metric:
        yield "metric", f"must be the name of a metric, got {spec.metric!r:.80}"
    elif metric.startswith(("best_", "test_", "time.")):
        yield "metric", f"must not begin with best_, test_ or time. (the service's own), got {spec.metric!r:.80}"
    enqueue: object = spec.enqueue
    if not isinstance(enqueue, Sequence) or not all(isinstance(params, Mapping) for params in enqueue):
        yield "enqueue", f"must be a list of mappings, got {spec.enqueue!r:.80}"
    if spec.reuse_epochs not in {True, False}:
        yield "reuse_epochs", f"must be True or False, got {spec.reuse_epochs!r:.80}"


def _function_faults(spec: StudySpec) -> Iterator[tuple[str, str]]:
    for field in ("suggest", "prepare"):
        if not callable(getattr(spec, field)):
            yield field, f"must be a function, got {getattr(spec, field)!r:.80}"
    for field in ("draw", "summarize"):
        given = getattr(spec, field)
        if given is not None and not callable(given):
            yield field, f"must be a function or None, got {given!r:.80}"


def _choice_faults(spec: StudySpec) -> Iterator[tuple[str, str]]:
    choices: dict[str, tuple[str, ...]] = {
        "direction": ("maximize", "minimize"),
        "value": ("best", "last"),
        "step_cost": ("epochs", "seconds"),
        "scheduler": SCHEDULERS,
        "sampler": SAMPLERS,
        "pruner": PRUNERS,
    }
    for field, allowed in choices.items():
        value = getattr(spec, field)
        own = field in {"sampler", "pruner", "scheduler"}
        if value not in allowed and not (own and callable(value)):
            suffix = f" or a function of a {'spec' if field == 'scheduler' else 'seed'}" if own else ""
            yield field, f"must be one of {', '.join(allowed)}{suffix}, got {value!r:.80}"
    if spec.max_epochs is None:
        if spec.pruner == "hyperband":
            yield "max_epochs", "is needed by the pruner hyperband, got None"
        elif spec.scheduler in PAUSING:
            yield "max_epochs", f"is needed by the scheduler {spec.scheduler}, got None"
    if spec.scheduler in PAUSING and spec.pruner != "none":
        yield (
            "pruner",
            f"must be none under the scheduler {spec.scheduler}, which pauses instead, got {spec.pruner!r:.80}",
        )


def _number_faults(spec: StudySpec) -> Iterator[tuple[str, str]]:
    for field, low, high, optional in (
        ("n_trials", 1, MAX_TRIALS, True),
        ("n_epochs", 1, 10**12, True),
        ("max_epochs", 1, 10**6, True),
        ("checkpoint_bytes", 0, 10**18, True),
        ("sampler_trials", 10, 10**6, True),
        ("seed", 0, 2**63 - 1, False),
        ("retries", 0, 100, False),
        ("keep_weights", 0, 10**6, False),
    ):
        if fault := outside(getattr(spec, field), low, high, optional=optional):
            yield field, fault
    seconds: object = spec.timeout_seconds
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and math.isfinite(float(seconds)) and float(seconds) > 0):  # type: ignore[arg-type]
        yield "timeout_seconds", f"must be a finite number above 0 or None, got {seconds!r:.80}"


def outside(value: object, low: int, high: int, *, optional: bool = False) -> str | None:
    """What is wrong with a value that must be a whole number in [low, high], or None."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        return f"must be a whole number in [{low}, {high}]{' or None' if optional else ''}, got {value!r:.80}"
    return None
