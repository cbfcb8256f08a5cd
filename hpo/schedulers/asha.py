"""Successive halving that promotes: a trial pauses at each rung, and goes on when it is among the rung's best.

Optuna's pruner of that name stops a trial for good on what it knows at that moment; this one can come back to it.
Source: Li et al. 2020 (A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934), algorithm 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from hpo.schedulers.proposals import propose
from hpo.schedulers.protocol import Continue, Decision, Done, History, Wait, within_budget
from hpo.spec import StudySpec

REDUCTION = 4
"""One of so many goes on from each rung; rungs lie at 1, 4, 16, … epochs and at the trial's end."""


@dataclass(frozen=True, slots=True)
class AshaScheduler:
    """Promotes paused trials; new ones are proposed by the study's sampler, which sees paused ones as pruned so far."""

    spec: StudySpec

    def decide(self, history: History) -> Decision:
        """Promote what has earned it, from the highest rung down; else start; else bring the best to its end."""
        if reason := history.is_over():
            return history.ended(reason)
        promoted = self._promotion(history)
        if promoted is not None:
            return within_budget(promoted, history)
        if history.may_start():
            started = propose(self.spec, history)
            if started is not None:
                return replace(started, until_epoch=1, why={"by": "asha"})
        if history.running():
            return Wait()
        return self._last(history)

    def _promotion(self, history: History) -> Continue | None:
        trials = [t for t in history.trials if t.intermediate_values and t.state != TrialState.FAIL]
        for rung in reversed(_rungs(max((history.horizon(t) or 1 for t in trials), default=1))):
            there = sorted((t for t in trials if len(t.intermediate_values) >= rung), key=lambda t: self._rank(t, rung))
            for trial in there[: len(there) // REDUCTION]:
                reached = len(trial.intermediate_values)
                if trial.number in history.paused and reached < _next_rung(history, trial, rung) and reached >= rung:
                    why = {"by": "asha", "rung": rung, "of": len(there)}
                    return Continue(trial.number, _next_rung(history, trial, rung), why)
        return None

    def _last(self, history: History) -> Decision:
        """Nothing may be started or has earned more: the best paused trial to its end, if it is the best of all."""
        seen = [t for t in history.trials if t.intermediate_values and t.state != TrialState.FAIL]
        best = min(seen, key=lambda t: self._rank(t, len(t.intermediate_values)), default=None)
        if best is None or best.number not in history.paused:
            return Done(f"all {history.n_trials} trials are done")
        return within_budget(Continue(best.number, history.horizon(best), {"by": "finish"}), history)

    def _rank(self, trial: FrozenTrial, rung: int) -> tuple[float, int]:
        """What trials are ordered by at a rung, best first: the value at so many epochs, then the number."""
        seen: Sequence[float] = [v for _, v in sorted(trial.intermediate_values.items())][:rung]
        signed = [-self.spec.sign * v if math.isfinite(v) else math.inf for v in seen]
        return (signed[-1] if self.spec.value == "last" else min(signed)), trial.number


def _rungs(horizon: int) -> list[int]:
    rungs = []
    rung = 1
    while rung < horizon:
        rungs.append(rung)
        rung *= REDUCTION
    return rungs


def _next_rung(history: History, trial: FrozenTrial, rung: int) -> int:
    longest = history.horizon(trial) or rung * REDUCTION
    after = rung * REDUCTION
    # A rung just below the end would leave a few epochs over: 64 of 70, say.
    return longest if after * 4 / 3 >= longest else after
