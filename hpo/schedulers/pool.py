"""New configurations for a model to choose among: some from anywhere, some near the best, nearer and nearer.

Drawing from a define-by-run space costs more than judging what was drawn, so that a draw serves several decisions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from hpo.coordinates import Coordinates, Floats
from hpo.draws import Candidates, Drawn
from hpo.seeds import derived_seed

N_ANYWHERE = 400
N_BEST, N_NEAR = 5, 24
"""So many near each of the best, for each of ..."""
NEAR_WIDTHS = (0.2, 0.1, 0.05)
"""... these shares of every param's range: a peak is looked for widely, then climbed."""
DECISIONS = 10
"""How many decisions in a row a draw serves."""


_Keyed = tuple[tuple[tuple[str, Any], ...], Drawn, Floats]


class Pool:
    """What may be started next, as drawn and as points.

    Its memory is no state: what it gives is a function of the seed, the decision's number and the best trials.
    """

    def __init__(self, seed: int, draws: Candidates, coordinates: Coordinates) -> None:
        self._seed, self._draws, self._coordinates = seed, draws, coordinates
        self._round = -1
        self._drawn: dict[int, list[_Keyed]] = {}

    def at(
        self, decision: int, best: Sequence[FrozenTrial], tried: Sequence[FrozenTrial]
    ) -> tuple[list[Drawn], Floats]:
        """The configurations, and their points float64 [n, d]; without those that were tried already.

        Args:
            decision: its number, from 0.
            best: trials to look around.
            tried: all trials.
        """
        if decision // DECISIONS != self._round:
            self._round, self._drawn = decision // DECISIONS, {}
        parts = [self._part(None), *(self._part(trial) for trial in best)]
        drawn = {key: (one, point) for part in parts for key, one, point in part}
        for trial in tried:
            drawn.pop(configuration(trial.params), None)
        if not drawn:  # a space of a few choices, all tried
            return [], self._coordinates.encode([])
        return [one for one, _ in drawn.values()], np.array([point for _, point in drawn.values()])

    def _part(self, around: FrozenTrial | None) -> list[_Keyed]:
        key = -1 if around is None else around.number
        if key not in self._drawn:
            rng = np.random.default_rng(derived_seed(self._seed, self._round, f"pool {key}"))
            drawn = list(self._draw(around, rng))
            points = self._coordinates.encode([one.suggested for one in drawn])
            self._drawn[key] = [(configuration(o.suggested), o, p) for o, p in zip(drawn, points, strict=True)]
        return self._drawn[key]

    def _draw(self, around: FrozenTrial | None, rng: np.random.Generator) -> Iterator[Drawn]:
        if around is None:
            yield from self._draws.anywhere(rng, N_ANYWHERE)
            return
        for width in NEAR_WIDTHS:
            yield from self._draws.near(rng, around.params, N_NEAR, width)


def configuration(suggested: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Suggested params as something that can be looked up."""
    return tuple(sorted(suggested.items()))
