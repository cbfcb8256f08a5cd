"""What a confirmation trains: which configurations on how many seeds, as a study beside the one that is confirmed."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.confirmation import Retrained
from hpo.names import sibling_name
from hpo.schedulers.proposals import ENQUEUED, fixed_start
from hpo.schedulers.protocol import SECONDS, Continue, Decision, History, params_of, within_budget
from hpo.seeds import configuration_key, derived_seed
from hpo.spec import MAX_TRIALS, StudySpec
from hpo.tracked import ranking

KEPT = 0.15
"""The share of a search's budget that `hpo.run --confirm` keeps for its confirmation."""
CONFIGURATION, SEED, ATTEMPT = "configuration", "seed", "attempt"
MAX_SEEDS = MAX_ATTEMPTS = 1_000
_SIZES = ((2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 5), (5, 5))
"""Configurations on seeds, as they grow with what is kept for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be trained anew.

    Attributes:
        configurations: params by the number of the trial of the search that had them, best first.
        searched: the values that the search saw of them; None for one that has none.
        baseline: number of the trial that had the first enqueued configuration; None where there is none.
        n_seeds: on how many seeds each.
        n_trials: of the sibling study in the end: what it has already, failed ones too, and what is to come. So it is
            another budget whenever there is something to come.
        study_id: of the search: a later study of the same name has other trials under the same numbers.
        failed: how often a configuration has failed on a seed: (configuration, seed, times). It is tried again.
    """

    configurations: Mapping[int, Mapping[str, Any]]
    searched: Mapping[int, float | None]
    baseline: int | None
    n_seeds: int
    n_trials: int
    study_id: str
    failed: Sequence[tuple[int, int, int]] = ()

    def pairs(self) -> Iterator[dict[str, int]]:
        """What is trained, in order: every configuration on the first seed, then on the next."""
        times = {(number, seed): n for number, seed, n in self.failed}
        for seed in range(self.n_seeds):
            for number in self.configurations:
                yield {CONFIGURATION: number, SEED: seed, ATTEMPT: times.get((number, seed), 0)}

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def plan_from_json(text: str) -> Plan:
    """What `Plan.to_json` gave."""
    found = json.loads(text)
    for name in ("configurations", "searched"):
        found[name] = {int(number): value for number, value in found[name].items()}
    return Plan(**{**found, "failed": [tuple(one) for one in found["failed"]]})


def sibling(spec: StudySpec, plan: Plan) -> StudySpec:
    """The study that trains a plan: its trials suggest a configuration's number and a seed's.

    Trials with the same number of the seed share their seed, so that configurations are compared in pairs; none of them
    is a seed of the search.
    """
    some = next(iter(plan.configurations.values()))

    def suggest(trial: Any) -> Mapping[str, Any]:
        number = trial.suggest_int(CONFIGURATION, 0, MAX_TRIALS)
        trial.suggest_int(SEED, 0, MAX_SEEDS - 1)
        trial.suggest_int(ATTEMPT, 0, MAX_ATTEMPTS - 1)
        return plan.configurations.get(number, some)

    return replace(
        spec,
        name=sibling_name(spec.name),
        suggest=suggest,
        n_trials=plan.n_trials,
        timeout_seconds=None,
        n_epochs=None,
        sampler="random",
        pruner="none",
        scheduler=Given,
        enqueue=tuple(plan.pairs()),
        seed=derived_seed(spec.seed, 0, "confirmation"),
        seed_by=SEED,
        keep_weights=plan.n_trials,
        checkpoint_bytes=None,
        reuse_epochs=False,
        summarize=None,
    )


@dataclass(frozen=True, slots=True)
class Given:
    """A scheduler: what is enqueued, each to its end, and nothing else."""

    spec: StudySpec

    def decide(self, history: History) -> Decision:
        """Start the next one."""
        if history.paused:
            return within_budget(Continue(min(history.paused)), history)
        started = fixed_start(self.spec, history)
        if started is None:
            return history.ended("every configuration is trained on every seed")
        return within_budget(started, history)


def chosen(
    spec: StudySpec,
    trials: Sequence[FrozenTrial],
    retrained: Sequence[FrozenTrial],
    *,
    top: int,
    n_seeds: int,
    study_id: str,
) -> Plan | None:
    """The best distinct configurations of a search, and its baseline.

    Args:
        spec: of the search.
        trials: of the search.
        retrained: of the sibling study, so far.
        top: how many of the best.
        n_seeds: on how many seeds.
        study_id: of the search.

    Returns:
        None where no trial of the search has a value.
    """
    best: dict[str, FrozenTrial] = {}
    for trial in ranking(spec, trials):
        best.setdefault(_key(trial), trial)
    found = list(best.values())[:top]
    if not found:
        return None
    baseline = baseline_of(spec, trials)
    if baseline is not None:
        twin = next((t for t in found if _key(t) == _key(baseline)), None)
        if twin is None:
            found.append(baseline)
        baseline = twin or baseline
    plan = Plan(
        configurations={t.number: params_of(t) for t in found},
        # What had not come to its end had no chance to look as good as it is.
        searched={t.number: t.value if t.state == TrialState.COMPLETE else None for t in found},
        baseline=None if baseline is None else baseline.number,
        n_seeds=n_seeds,
        n_trials=1,
        study_id=study_id,
    )
    failed = Counter(pair for t in retrained if t.state == TrialState.FAIL and (pair := _pair(t)) is not None)
    plan = replace(plan, failed=[(number, seed, times) for (number, seed), times in sorted(failed.items())])
    tried = [t.user_attrs.get(ENQUEUED) for t in retrained]
    return replace(plan, n_trials=max(1, len(retrained) + sum(pair not in tried for pair in plan.pairs())))


def _pair(retrained: FrozenTrial) -> tuple[int, int] | None:
    """The configuration and the seed of a trial that confirms; None where its worker died before they were known."""
    params = retrained.params
    return (params[CONFIGURATION], params[SEED]) if {CONFIGURATION, SEED} <= params.keys() else None


def baseline_of(spec: StudySpec, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial of a study's first enqueued configuration; None where there is none among these."""
    return next((t for t in trials if spec.enqueue and t.user_attrs.get(ENQUEUED) == dict(spec.enqueue[0])), None)


def _key(trial: FrozenTrial) -> str:
    params = params_of(trial)
    return f"{configuration_key(params)} {params.get('epochs')}"


def results(plan: Plan, retrained: Sequence[FrozenTrial]) -> tuple[list[Retrained], list[str]]:
    """What a plan's trials came to; and which configurations did not come through, with the reason.

    Args:
        plan: that was trained.
        retrained: trials of the sibling study.
    """
    ended = {_pair(t): t for t in retrained}  # the last attempt's
    found, lost = [], []
    for number, params in plan.configurations.items():
        trials = [ended.get((number, seed)) for seed in range(plan.n_seeds)]
        done = [t for t in trials if t is not None and t.state == TrialState.COMPLETE and t.value is not None]
        if len(done) == plan.n_seeds:
            found.append(
                Retrained(
                    trial=number,
                    params=params,
                    is_baseline=number == plan.baseline,
                    searched=plan.searched[number],
                    trials=tuple(t.number for t in done),
                    values=tuple(float(t.value or 0.0) for t in done),
                )
            )
            continue
        failed = next((t for t in trials if t is not None and t.state in {TrialState.FAIL, TrialState.PRUNED}), None)
        if failed is not None:
            reason = str(failed.user_attrs.get("hpo.reason", failed.state.name)).splitlines()[0]
            lost.append(f"the configuration of trial {number} on seed {failed.params[SEED]}: {reason}")
    return found, lost


def affordable(spec: StudySpec, n_trials: int | None, trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    """How many configurations on how many seeds the budget that was kept pays for: (top, seeds), at least (2, 2).

    The baseline is trained as well.

    Args:
        spec: of the search.
        n_trials: its budget of trials, with what is kept.
        trials: of the search.
    """
    longest = [float(params_of(t).get("epochs", spec.max_epochs or 1)) for t in ranking(spec, trials)[:5]]
    epochs = min(max(longest, default=float(spec.max_epochs or 1)), float(spec.max_epochs or math.inf))
    pays = [KEPT * n_trials] if n_trials is not None else []
    if spec.n_epochs is not None:
        pays.append(KEPT * spec.n_epochs / epochs)
    if spec.timeout_seconds is not None and (seconds := epoch_seconds(trials)):
        pays.append(KEPT * spec.timeout_seconds / (epochs * seconds))
    fitting = [(top, seeds) for top, seeds in _SIZES if (top + 1) * seeds <= min(pays, default=0.0)]
    return fitting[-1] if fitting else _SIZES[0]


def epoch_seconds(trials: Sequence[FrozenTrial]) -> float | None:
    """What an epoch of these trials took on its device, in seconds; None where none was trained."""
    trained = sum(len(t.intermediate_values) for t in trials)
    seconds = sum(t.user_attrs.get(SECONDS, 0.0) for t in trials)
    return seconds / trained if trained and seconds else None


def budget_of(spec: StudySpec, n_trials: int | None) -> list[float | None]:
    """A search's budget as the store keeps it (`names.OVER`): trials, epochs, device seconds."""
    return [n_trials, spec.n_epochs, spec.timeout_seconds]


def kept_budget(spec: StudySpec, n_trials: int | None) -> list[float | None]:
    """The same without what is kept for its confirmation."""
    return budget_of(less_kept(spec), trials_less_kept(n_trials))


def less_kept(spec: StudySpec) -> StudySpec:
    """A search's budget of epochs and seconds without what is kept for its confirmation."""
    return replace(
        spec,
        n_epochs=None if spec.n_epochs is None else max(1, round((1 - KEPT) * spec.n_epochs)),
        timeout_seconds=None if spec.timeout_seconds is None else (1 - KEPT) * spec.timeout_seconds,
    )


def trials_less_kept(n_trials: int | None) -> int | None:
    """A search's budget of trials without what is kept for its confirmation."""
    return None if n_trials is None else max(1, round((1 - KEPT) * n_trials))
