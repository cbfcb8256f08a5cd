"""What users would pick instead, each with its own package, its own defaults, and asked as its documentation asks."""

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from benchmarks.searching.methods import Method, Trace
from benchmarks.searching.tasks import Curve, Task, distributions


def with_optuna(
    sampler: Callable[[int], optuna.samplers.BaseSampler], pruner: Callable[[int], optuna.pruners.BasePruner]
) -> Method:
    """Optuna as its own documentation uses it: `ask`, `report`, `should_prune`, `tell`."""

    def run(task: Task, seed: int, budget: int) -> Trace:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                study_name=f"{task.name}-{seed}",  # Hyperband draws a trial's bracket from it
                direction="maximize", sampler=sampler(seed), pruner=pruner(task.max_epochs),
            )  # fmt: skip
        trace, used = Trace(), set[int]()
        while trace.spent < budget:
            began = time.perf_counter()
            trial = study.ask()
            suggested = task.suggest(trial)
            trace.decision_seconds.append(time.perf_counter() - began)
            params, row, curve = task.curve(suggested, used)
            used |= set() if row is None else {row}
            if row is not None:  # the sampler is told what really ran
                kept = study._storage.get_trial(trial._trial_id).distributions
                for name, value in params.items():
                    internal = kept[name].to_internal_repr(value)
                    study._storage.set_trial_param(trial._trial_id, name, internal, kept[name])
            _train(study, trial, trace, curve, budget)
        return trace

    return run


def _train(study: optuna.Study, trial: optuna.Trial, trace: Trace, curve: Curve, budget: int) -> None:
    best = -math.inf
    for epoch, seen in enumerate(map(float, curve.seen)):
        if trace.spent >= budget:
            return
        if not trace.see(curve, epoch):
            study.tell(trial, state=TrialState.PRUNED)
            return
        best = max(best, seen)
        trial.report(seen, epoch)
        if epoch < len(curve) - 1 and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, best)


def with_syne_tune(make: Callable[[dict[str, Any], int, int], Any]) -> Method:
    """Syne Tune's schedulers, one worker: a trial goes on until its scheduler stops it or it is at its end.

    Args:
        make: of a config space, the longest trial and a seed, the scheduler.
    """

    def run(task: Task, seed: int, budget: int) -> Trace:
        import logging

        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer.scheduler import SchedulerDecision

        logging.getLogger().setLevel(logging.ERROR)
        space = _syne_space(task)
        scheduler = make(space, task.max_epochs, seed)
        trace, used, number = Trace(), set[int](), 0
        while trace.spent < budget:
            began = time.perf_counter()
            suggestion = scheduler.suggest()
            trace.decision_seconds.append(time.perf_counter() - began)
            params, row, curve = task.curve(suggestion.config, used)
            used |= set() if row is None else {row}
            trial = Trial(number, params if row is not None else suggestion.config, None)
            number += 1
            scheduler.on_trial_add(trial)
            best = -math.inf
            for epoch, seen in enumerate(map(float, curve.seen)):
                if trace.spent >= budget:
                    break
                if not trace.see(curve, epoch):
                    scheduler.on_trial_error(trial)
                    break
                best = max(best, seen)
                result = {"value": best, "epoch": epoch + 1}
                if epoch == len(curve) - 1:
                    scheduler.on_trial_complete(trial, result)
                elif scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                    scheduler.on_trial_remove(trial)
                    break
        return trace

    return run


def _syne_space(task: Task) -> dict[str, Any]:
    from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform

    def domain(distribution: Any) -> Any:
        match distribution:
            case CategoricalDistribution():
                return choice(list(distribution.choices))
            case IntDistribution():
                return (lograndint if distribution.log else randint)(distribution.low, distribution.high)
        return (loguniform if distribution.log else uniform)(distribution.low, distribution.high)

    return {name: domain(distribution) for name, distribution in distributions(task).items()}


def peers() -> dict[str, Method]:
    """All that are installed, by name."""
    samplers, pruners = optuna.samplers, optuna.pruners
    found = {
        "optuna random": with_optuna(lambda s: samplers.RandomSampler(seed=s), _without_pruner),
        "optuna tpe": with_optuna(lambda s: samplers.TPESampler(seed=s), _without_pruner),
        "optuna tpe + median": with_optuna(lambda s: samplers.TPESampler(seed=s), lambda _: pruners.MedianPruner()),
        "optuna tpe + halving": with_optuna(
            lambda s: samplers.TPESampler(seed=s), lambda _: pruners.SuccessiveHalvingPruner()
        ),
        HYPERBAND: with_optuna(
            lambda s: samplers.TPESampler(seed=s),
            lambda longest: pruners.HyperbandPruner(min_resource=1, max_resource=longest),
        ),
        "optuna gp": with_optuna(lambda s: samplers.GPSampler(seed=s), _without_pruner),
    }
    if importlib.util.find_spec("syne_tune") is not None:
        found |= {
            "syne tune asha": with_syne_tune(_syne("ASHA")),
            "syne tune bohb": with_syne_tune(_syne("BOHB")),
            "syne tune asha + cqr": with_syne_tune(_syne("ASHACQR")),
        }
    return found


HYPERBAND = "optuna tpe + hyperband"


def _without_pruner(_longest: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


def _syne(name: str) -> Callable[[dict[str, Any], int, int], Any]:
    def make(space: dict[str, Any], longest: int, seed: int) -> Any:
        from syne_tune.optimizer import baselines

        kind = getattr(baselines, name)
        return kind(space, metric="value", time_attr="epoch", max_t=longest, do_minimize=False, random_seed=seed)

    return make
