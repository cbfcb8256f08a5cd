"""Optuna's sampler proposes, every trial runs to its end unless Optuna's pruner stops it."""

from dataclasses import dataclass

from hpo.schedulers.proposals import propose
from hpo.schedulers.protocol import Continue, Decision, History, within_budget
from hpo.spec import StudySpec


@dataclass(frozen=True, slots=True)
class OptunaScheduler:
    """A sampler and a pruner of Optuna's, as the study names them."""

    spec: StudySpec

    def decide(self, history: History) -> Decision:
        """Start trials until the budget is met."""
        if reason := history.is_over():
            return history.ended(reason)
        if history.paused:  # the budget of epochs was met amid them, and has grown
            return within_budget(Continue(min(history.paused)), history)
        started = propose(self.spec, history) if history.may_start() else None
        if started is not None:
            return within_budget(started, history)
        return history.ended(
            "every cell of the grid is done" if history.may_start() else f"all {history.n_trials} trials are done"
        )
