"""New configurations for a model to choose among: some from anywhere, some near the best, nearer and nearer.

Drawing from a define-by-run space costs more than judging what was drawn, so that what is from anywhere serves several
decisions. What is near the best is new each time: that is where a peak is climbed.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from optuna.trial import FrozenTrial

from hpo.coordinates import Coordinates, Floats
from hpo.draws import Candidates, Drawn
from hpo.seeds import configuration_key, derived_seed

N_ANYWHERE = 400
N_NEAR = 16
"""So many near each of the best, for each of ..."""
NEAR_WIDTHS = (0.2, 0.1, 0.05)
"""... these shares of every param's range: a peak is looked for widely, then climbed."""
DECISIONS = 10
"""How many decisions in a row what is from anywhere serves."""


Keyed = tuple[str, Drawn, Floats]
"""A configuration's key, the configuration as drawn, and its point float64 [d]."""


class Pool:
    """What may be started next, as drawn and as points.

    Its memory is no state: what it gives is a function of the seed, the decision's number and the best trials.
    """

    def __init__(self, seed: int, draws: Candidates, coordinates: Coordinates) -> None:
        self._seed, self._draws, self._coordinates = seed, draws, coordinates
        self._anywhere: tuple[int, list[Keyed]] = -1, []

    def at(self, decision: int, best: Sequence[FrozenTrial]) -> list[Keyed]:
        """Each configuration once.

        Args:
            decision: its number, from 0.
            best: trials to look around.
        """
        turn = decision // DECISIONS
        if turn != self._anywhere[0]:
            self._anywhere = turn, self._keyed(self._draws.anywhere(self._rng(turn, "anywhere"), N_ANYWHERE))
        rng = self._rng(decision, "near")
        near = [self._draws.near(rng, t.params, N_NEAR, width) for t in best for width in NEAR_WIDTHS]
        return list({keyed[0]: keyed for keyed in (*self._anywhere[1], *self._keyed(chain(*near)))}.values())

    def _rng(self, number: int, stream: str) -> np.random.Generator:
        return np.random.default_rng(derived_seed(self._seed, number, stream))

    def _keyed(self, drawn: Iterable[Drawn]) -> list[Keyed]:
        them = list(drawn)
        points = self._coordinates.encode([one.suggested for one in them])
        return [(configuration_key(one.suggested), one, point) for one, point in zip(them, points, strict=True)]
