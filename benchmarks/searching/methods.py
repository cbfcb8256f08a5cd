"""Searches, ours and others', each on one recorded task: what it had found after how many epochs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.searching.tasks import Curve, Task
from hpo.draws import Drawn, Draws
from hpo.schedulers.freeze_thaw import FreezeThawScheduler
from hpo.schedulers.named import make_scheduler
from hpo.schedulers.protocol import DECISIONS, DROPPED, SECONDS, Continue, Done, History, Start, Step
from hpo.spec import StudySpec


@dataclass
class Trace:
    """What a search saw: the incumbent by what was spent.

    Attributes:
        epochs: float64 [k], spent when each incumbent was found.
        clock: float64 [k], seconds of training until then; zeros where the task has none.
        scored: float64 [k], what each is worth.
        decision_seconds: of every decision.
    """

    epochs: list[int] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    scored: list[float] = field(default_factory=list)
    decision_seconds: list[float] = field(default_factory=list)
    spent: int = 0
    seconds: float = 0.0
    _best: float = -math.inf

    def see(self, curve: Curve, epoch: int) -> bool:
        """Take in the epoch that follows `epoch` of them; false where it diverged."""
        self.pay(curve, epoch, epoch + 1)
        seen = float(curve.seen[epoch])
        if not math.isfinite(seen):
            return False
        if seen > self._best:
            self._best = seen
            self.epochs.append(self.spent)
            self.clock.append(self.seconds)
            self.scored.append(float(curve.scored[epoch]))
        return True

    def pay(self, curve: Curve, start: int, until: int) -> None:
        """Count what training a curve's epochs takes."""
        self.spent += until - start
        self.seconds += 0.0 if curve.seconds is None else float(curve.seconds[start:until].sum())

    def go_on(self, curve: Curve, start: int, until: int, budget: int) -> bool:
        """Take in epochs of a curve as far as the budget goes; false where it ended or training diverged."""
        return all(self.spent < budget and self.see(curve, epoch) for epoch in range(start, until))


Method = Callable[[Task, int, int], Trace]
"""Of a task, a seed and a budget of epochs."""


class _Unused:
    def train(self, params: Any, *, seed: int, workdir: Any) -> Iterator[Mapping[str, float]]:
        raise NotImplementedError

    def evaluate(self, workdir: Any, split: str) -> Mapping[str, float]:
        raise NotImplementedError


FREE_RESUME, NO_CHECKPOINTS, BY_SECONDS = ", free resume", ", no checkpoints", ", by seconds"
"""Appended to the names of variants, which stand in a table of their own. Two are what nobody runs: a peer that may go
on with what it has trained, ours that may not: they tell what the method saves from what the checkpoint saves. The
third weighs a step by its seconds."""


def is_variant(name: str) -> bool:
    """Whether it is there only to be told from the method itself."""
    return name.endswith((FREE_RESUME, NO_CHECKPOINTS, BY_SECONDS))


def ours(scheduler: Any, *, checkpoints: bool = True, **fields: Any) -> Method:
    """One of this project's schedulers, asked as the service asks it.

    Args:
        scheduler: its name.
        checkpoints: without them a trial that goes on trains its first epochs again; freeze_thaw counts that as cost.
        fields: of the study.
    """

    def run(task: Task, seed: int, budget: int) -> Trace:
        trace, trials, curves, used = Trace(), list[FrozenTrial](), list[Curve](), set[int]()
        n_again = 0
        spec = StudySpec(
            name="bench", suggest=task.suggest, prepare=lambda _: _Unused(), metric="value", n_trials=None,
            n_epochs=budget, max_epochs=task.max_epochs, scheduler=scheduler, seed=seed, **fields,
        )  # fmt: skip
        decider: Any = make_scheduler(spec)
        if isinstance(decider, FreezeThawScheduler):
            decider = replace(decider, draws=_Recorded(Draws(task.suggest), task, used))
        while True:
            paused = frozenset(t.number for t in trials if t.state == TrialState.RUNNING)
            began = time.perf_counter()
            decision = decider.decide(History(spec, None, trials, paused))
            trace.decision_seconds.append(time.perf_counter() - began)
            if isinstance(decision, Start):
                params, row, curve = task.curve(decision.suggested.params, used)
                used |= set() if row is None else {row}
                trial = create_trial(
                    state=TrialState.RUNNING, params=params, distributions=dict(decision.suggested.distributions)
                )
                trial.number = len(trials)
                trial.system_attrs.update(decision.suggested.system_attrs)
                trials.append(trial)
                curves.append(curve)
            elif isinstance(decision, Continue):
                trial = trials[decision.number]
            else:
                assert isinstance(decision, Done), decision
                return trace
            if not checkpoints:  # of its budget so much is left
                trace.pay(curves[trial.number], 0, len(trial.intermediate_values))
                n_again += len(trial.intermediate_values)
                spec = replace(spec, n_epochs=max(1, budget - n_again))
                decider = replace(decider, spec=spec)
            _carry_out(trace, trial, curves[trial.number], decision, task.max_epochs, sum(map(_n_steps, trials)))
            if not checkpoints:
                trial.user_attrs[DROPPED] = len(trial.intermediate_values)

    return run


@dataclass(frozen=True)
class _Recorded:
    """Draws that are taken for recorded rows before the model judges them: what it chooses is what runs."""

    draws: Draws
    task: Task
    used: set[int]

    def anywhere(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        return self._taken(self.draws.anywhere(rng, n))

    def spread(self, rng: np.random.Generator, n: int) -> Iterator[Drawn]:
        return self.draws.spread(rng, n)

    def near(self, rng: np.random.Generator, around: Mapping[str, Any], n: int, width: float) -> Iterator[Drawn]:
        return self._taken(self.draws.near(rng, around, n, width))

    def _taken(self, drawn: Iterator[Drawn]) -> Iterator[Drawn]:
        them = list(drawn)
        for one, params in zip(them, self.task.snapped([d.suggested for d in them], self.used), strict=True):
            yield Drawn(params, one.distributions, params)


def _n_steps(trial: FrozenTrial) -> int:
    return len(trial.user_attrs.get(DECISIONS, []))


def _carry_out(
    trace: Trace, trial: FrozenTrial, curve: Curve, decision: Start | Continue, longest: int, order: int
) -> None:
    until = decision.until_epoch or longest
    reached = len(trial.intermediate_values)
    step = Step(order, trial.number, reached, until, decision.why)
    trial.user_attrs[DECISIONS] = [*trial.user_attrs.get(DECISIONS, []), step.to_json()]
    for epoch in range(reached, until):
        if not trace.see(curve, epoch):
            trial.state = TrialState.PRUNED
            trial.user_attrs["hpo.reason"] = "diverged"
            break
        trial.intermediate_values[epoch] = float(curve.seen[epoch])
    if curve.seconds is not None:
        trial.user_attrs[SECONDS] = float(curve.seconds[: len(trial.intermediate_values)].sum())
    if len(trial.intermediate_values) >= longest:
        trial.state = TrialState.COMPLETE
    if trial.state.is_finished() and trial.intermediate_values:
        trial.values = [max(trial.intermediate_values.values())]


def screen(width: int) -> Method:
    """A plain baseline: one epoch each for many, then the best to its end, and again (Bohdal et al. and others)."""

    def run(task: Task, seed: int, budget: int) -> Trace:
        rng = optuna.samplers.RandomSampler(seed=seed)
        study = optuna.create_study(direction="maximize", sampler=rng)
        trace, used = Trace(), set[int]()
        while trace.spent < budget:
            curves: list[tuple[float, int, Curve]] = []
            for _ in range(width):
                trial = study.ask()
                _, row, curve = task.curve(task.suggest(trial), used)
                used |= set() if row is None else {row}
                study.tell(trial, state=TrialState.PRUNED)
                if trace.go_on(curve, 0, 1, budget):
                    curves.append((float(curve.seen[0]), len(curves), curve))
            if curves:
                _, _, curve = max(curves)
                trace.go_on(curve, 1, len(curve), budget)
        return trace

    return run


def doubling(width: int = 16) -> Method:
    """A plain baseline: successive doubling of random configurations, half going on each time (Jamieson, Talwalkar)."""

    def run(task: Task, seed: int, budget: int) -> Trace:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
        trace, used = Trace(), set[int]()
        while trace.spent < budget:
            alive: list[Curve] = []
            for _ in range(width):
                trial = study.ask()
                _, row, curve = task.curve(task.suggest(trial), used)
                used |= set() if row is None else {row}
                study.tell(trial, state=TrialState.PRUNED)
                alive.append(curve)
            reached, aim = 0, 1
            while alive and trace.spent < budget:
                ok = [c for c in alive if trace.go_on(c, reached, aim, budget)]
                ok.sort(key=lambda c: -float(np.nanmax(c.seen[:aim])))
                if aim == task.max_epochs:
                    break
                alive = ok[: max(1, len(alive) // 2)]
                reached, aim = aim, min(2 * aim, task.max_epochs)
        return trace

    return run
