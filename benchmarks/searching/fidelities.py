"""Peers that ask for a configuration's value at more epochs again: SMAC3; and Ray Tune's ASHA, which only stops."""

import importlib.util
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.searching.methods import FREE_RESUME, Method, Trace
from benchmarks.searching.tasks import Curve, Task, distributions


def with_smac(*, free_resume: bool) -> Method:
    """SMAC3's multi-fidelity facade, by its `ask` and `tell`: a random forest, and Hyperband of 2, 6, 17 and 50 epochs.

    A configuration that it asks for again, for more epochs, trains from its first epoch, as its users' functions do.

    Args:
        free_resume: it goes on from where it was instead.
    """

    def run(task: Task, seed: int, budget: int) -> Trace:
        from smac import MultiFidelityFacade, Scenario
        from smac.runhistory.dataclasses import TrialValue

        with tempfile.TemporaryDirectory() as folder:
            scenario = Scenario(
                _configuration_space(task, seed), deterministic=True, n_trials=100_000, seed=seed, min_budget=1,
                max_budget=task.max_epochs, output_directory=Path(folder),
            )  # fmt: skip
            smac = MultiFidelityFacade(scenario, _never_called, logging_level=40, overwrite=True)
            trace, used, known = Trace(), set[int](), dict[Any, Curve]()
            reached: dict[Any, int] = {}
            while trace.spent < budget:
                began = time.perf_counter()
                info = smac.ask()
                trace.decision_seconds.append(time.perf_counter() - began)
                if info.config not in known:
                    _, row, known[info.config] = task.curve(dict(info.config), used)
                    used |= set() if row is None else {row}
                curve = known[info.config]
                until = max(1, round(info.budget or task.max_epochs))
                trace.go_on(curve, reached.get(info.config, 0) if free_resume else 0, until, budget)
                reached[info.config] = until
                best = float(np.max(np.where(np.isfinite(curve.seen[:until]), curve.seen[:until], -math.inf)))
                smac.tell(info, TrialValue(cost=-best if math.isfinite(best) else -task.worst), save=False)
        return trace

    return run


def _never_called(config: Any, seed: int, budget: float) -> float:
    raise NotImplementedError


def _configuration_space(task: Task, seed: int) -> Any:
    from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace
    from ConfigSpace import UniformFloatHyperparameter as Real
    from ConfigSpace import UniformIntegerHyperparameter as Whole

    space = ConfigurationSpace(seed=seed)
    for name, distribution in distributions(task).items():
        match distribution:
            case CategoricalDistribution():
                space.add(CategoricalHyperparameter(name, distribution.choices))
            case IntDistribution():
                space.add(Whole(name, distribution.low, distribution.high, log=distribution.log))
            case FloatDistribution():
                space.add(Real(name, distribution.low, distribution.high, log=distribution.log))
    return space


def ray_asha(task: Task, seed: int, budget: int) -> Trace:
    """Ray Tune's ASHA with its defaults, and its random search: the scheduler is asked as its controller asks it."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    space = _ray_space(task)
    rng = np.random.RandomState(seed)
    asha: Any = AsyncHyperBandScheduler("epoch", "value", "max", max_t=task.max_epochs, grace_period=1)
    trace, used, number = Trace(), set[int](), 0
    while trace.spent < budget:
        began = time.perf_counter()
        suggested = {name: domain.sample(random_state=rng) for name, domain in space.items()}
        trace.decision_seconds.append(time.perf_counter() - began)
        _, row, curve = task.curve(suggested, used)
        used |= set() if row is None else {row}
        trial: Any = SimpleNamespace(trial_id=str(number))
        number += 1
        asha.on_trial_add(None, trial)
        best = -math.inf
        for epoch, seen in enumerate(map(float, curve.seen)):
            if trace.spent >= budget or not trace.see(curve, epoch):
                asha.on_trial_error(None, trial)
                break
            best = max(best, seen)
            result = {"epoch": epoch + 1, "value": best}
            if asha.on_trial_result(None, trial, result) != TrialScheduler.CONTINUE:
                break
    return trace


def _ray_space(task: Task) -> Mapping[str, Any]:
    from ray import tune

    def domain(distribution: Any) -> Any:
        match distribution:
            case CategoricalDistribution():
                return tune.choice(list(distribution.choices))
            case IntDistribution():
                return (tune.lograndint if distribution.log else tune.randint)(distribution.low, distribution.high + 1)
        return (tune.loguniform if distribution.log else tune.uniform)(distribution.low, distribution.high)

    return {name: domain(distribution) for name, distribution in distributions(task).items()}


def fidelity_peers() -> dict[str, Method]:
    """All that are installed, by name."""
    found: dict[str, Method] = {}
    if importlib.util.find_spec("ray") is not None:
        found["ray tune asha"] = ray_asha
    if importlib.util.find_spec("smac") is not None:
        found["smac3 multi-fidelity"] = with_smac(free_resume=False)
        found[f"smac3 multi-fidelity{FREE_RESUME}"] = with_smac(free_resume=True)
    return found
