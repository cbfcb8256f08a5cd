"""What a study's ended trials come to, kept as they end: of ten thousand only the new ones are looked at."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from hpo.schedulers.protocol import STUDY_ATTRS, Settled
from hpo.spec import StudySpec
from hpo.tracked import counted, rank


@dataclass(slots=True)
class Board:
    """Trials that have ended; such a trial never changes.

    Attributes:
        order: (rank, number) of those whose values count, best first.
        settled: the first trials, all of which have ended.
    """

    spec: StudySpec
    order: list[tuple[float, int]] = field(default_factory=list)
    settled: Settled = field(default_factory=Settled)
    _later: set[int] = field(default_factory=set)
    """Numbers of ended trials beyond those."""
    _attrs: dict[str, Any] = field(default_factory=dict)

    def take_in(self, trials: Sequence[FrozenTrial]) -> None:
        """Look at all trials of the study, by number; those of the last call are among them."""
        first = self.settled.n
        fresh = trials[first:]
        ended = [t for t in fresh if t.state.is_finished() and t.number not in self._later]
        for trial in counted(ended):
            insort(self.order, rank(self.spec, trial.value or 0.0, trial.number))
        self._later.update(t.number for t in ended)
        n = 0
        while first + n in self._later:
            self._later.remove(first + n)
            n += 1
        self._attrs = study_attrs(fresh[:n], self._attrs)
        self.settled = self.settled.and_then(fresh[:n])

    def study_attrs(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """What samplers keep on the study (a place in a sequence), from the trials that brought it."""
        return study_attrs(trials[self.settled.n :], self._attrs)


def study_attrs(trials: Sequence[FrozenTrial], before: dict[str, Any]) -> dict[str, Any]:
    """What samplers keep on the study after these trials."""
    attrs = dict(before)
    for trial in trials:
        attrs.update(trial.system_attrs.get(STUDY_ATTRS, {}))
    return attrs
