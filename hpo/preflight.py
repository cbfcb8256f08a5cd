"""What a study needs and how long it will take, said before its first trial."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from hpo.errors import SPARE_BYTES, DiskFullError
from hpo.objective import Emit
from hpo.resume import OpenStudy, enqueued_params
from hpo.space import CORNERS, walk
from hpo.spec import Params, StudySpec, Trainer
from hpo.words import spread

LONG_SECONDS = 2 * 3600.0

log = logging.getLogger("hpo")


def preflight(
    spec: StudySpec,
    opened: OpenStudy,
    trials: Sequence[FrozenTrial],
    trainer: Trainer,
    folder: Path,
    emit: Emit,
) -> None:
    """Say what the study needs, where its trainer can tell, and refuse to begin where the disk has no room for it.

    Raises:
        DiskFullError: less free than three checkpoints and 200 MB.
    """
    if not is_work_left(opened.n_trials, trials):
        return
    candidates = candidates_of(spec)
    needs = _needs(trainer, candidates)
    n_bytes = needs.get("checkpoint", (0.0, 0.0))[1]
    free, wanted = shutil.disk_usage(folder).free, 3 * n_bytes + SPARE_BYTES
    if free < wanted:
        raise DiskFullError(f"{folder}: {free / 1e9:.1f} GB free, need {wanted / 1e9:.1f} GB: 3 checkpoints and 0.2 GB")
    if n_bytes > SPARE_BYTES:
        text = (
            f"a checkpoint takes {n_bytes / 1e9:.1f} GB: each running trial needs up to {3 * n_bytes / 1e9:.1f} GB here"
        )
        emit({"event": "notice", "text": text})
    if "epoch_seconds" in needs:
        memory = f", up to {needs['memory'][1] / 1e9:.1f} GB of memory a trial" if "memory" in needs else ""
        length, least = forecast(spec, opened.n_trials, trials, candidates, needs["epoch_seconds"])
        text = f"an epoch takes about {spread(*needs['epoch_seconds'])} here{memory}; {length}"
        emit({"event": "notice", "text": text})
        if least > LONG_SECONDS and str(opened.identity.description.get("device", "cpu")).startswith("cpu"):
            text = "that is long, on a CPU; a study that suits one: --study fer_small"
            emit({"event": "notice", "text": text})


def is_work_left(n_trials: int | None, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a budget of trials has room."""
    return n_trials is None or _n_left(n_trials, trials) > 0


def candidates_of(spec: StudySpec) -> list[Params]:
    """Params that may come: both ends of every categorical branch, and what is enqueued."""
    ends = [branch.params for corner in CORNERS for branch in walk(spec.suggest, corner)]
    return [*ends, *(enqueued_params(spec, position) for position in range(len(spec.enqueue)))]


def forecast(
    spec: StudySpec,
    n_trials: int | None,
    trials: Sequence[FrozenTrial],
    candidates: Sequence[Params],
    epoch_seconds: tuple[float, float],
) -> tuple[str, float]:
    """What is left of a study's budget, and what it takes at most; and the least of the two ends of that, in seconds.

    Args:
        spec: of the study.
        n_trials: its budget of trials by now.
        trials: it has by now.
        candidates: params that may come.
        epoch_seconds: the least and the most that an epoch takes.
    """
    most = math.inf if spec.max_epochs is None else spec.max_epochs
    longest = max(min(float(params.get("epochs", most)), most) for params in candidates)
    bounds = []
    if n_trials is not None and math.isfinite(longest):
        left = _n_left(n_trials, trials)
        bounds.append((left * longest, f"{left} trial{'s'[: left != 1]}"))
    if spec.n_epochs is not None:
        n_epochs = max(0, spec.n_epochs - sum(len(t.intermediate_values) for t in trials))
        bounds.append((float(n_epochs), f"{n_epochs} epochs"))
    if not bounds:
        return (
            "it has no end but the one that you give it" if spec.timeout_seconds is None else "its budget is time",
            0.0,
        )
    n, words = min(bounds)
    seconds = (n * epoch_seconds[0], n * epoch_seconds[1])
    return f"{words}: at most {spread(*seconds)}", seconds[0]


def _needs(trainer: Trainer, candidates: Sequence[Params]) -> dict[str, tuple[float, float]]:
    """What the trainer says of its trials; nothing, and a warning, where it fails in it: the trials may not."""
    estimate = getattr(trainer, "estimate", None)
    if estimate is None:
        return {}
    try:
        told: Mapping[str, Any] = estimate(candidates)
        return {name: (float(least), float(most)) for name, (least, most) in told.items()}
    except Exception as error:
        log.debug("estimate raised", exc_info=True)
        log.warning("what a trial needs is not known: estimate raises %s: %s", type(error).__name__, error)
        return {}


def _n_left(n_trials: int, trials: Sequence[FrozenTrial]) -> int:
    ended = [t for t in trials if t.state.is_finished() and t.state.name != "FAIL"]
    return max(0, n_trials - len(ended))
