"""Every trial begins with one epoch; a model of all curves says which of them, paused or new, goes on.

What is observed is a trial's best value so far at epochs 1, 2, 4, … and at its end, as the normal quantile of its rank
among all observations: real landscapes are flat with a few peaks, and ranks suit that. A Gaussian process
(`surrogate`) predicts every paused trial, and many new configurations, at a random horizon; the one most likely to
pass a random threshold above the best gets the epochs to its next rung. Random horizon and threshold:
MFPI-random of Rakotoarison et al. 2024 (in-context freeze-thaw Bayesian optimization, arXiv:2404.16795).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from optuna.trial import TrialState
from scipy.special import log_ndtr

from hpo.coordinates import Coordinates, Floats, Ints
from hpo.draws import Candidates, Drawn, Draws
from hpo.schedulers.asha import AshaScheduler
from hpo.schedulers.curves import Curve, curve_of, observations, relative_time, rungs, thinned
from hpo.schedulers.pool import Pool
from hpo.schedulers.proposals import fixed_start
from hpo.schedulers.protocol import (
    DROPPED,
    SECONDS,
    Continue,
    Decision,
    Done,
    History,
    Start,
    Suggested,
    horizon,
    within_budget,
)
from hpo.schedulers.surrogate import Posterior, Rows, fit
from hpo.seeds import configuration_key, derived_seed
from hpo.spec import StudySpec

FIRST = 8
"""Configurations that get one epoch before the model has a say ..."""
FIRST_RUNG = 48
"""... and that many in all, each other decision, beside what the model decides ..."""
WIDEN_SHARE = 0.5
"""... so that the search neither waits for a wide first rung nor goes without one.

Never more than the longest trial has epochs: that is one full training.
"""
MAX_ROWS = 200
"""Rows that the model predicts from."""
MAX_FIT_ROWS = 100
COST_WEIGHT = 0.5
"""How much a step's cost counts: the logarithm of the chance is lowered by this times that of the cost."""
THRESHOLDS = (-2.0, -0.3)
"""The threshold lies 10^U above the best observation, U uniform between these."""
N_BEST = 5
"""Trials around which new configurations are drawn."""
FINISH_SHARE = 0.15
"""At most this share of a budget is kept to bring the best trial to its end."""
WORTH_GOING_ON = 0.02
"""Where no trial may be started, the study is done when no paused one has this chance to become the best."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What may get the next epochs: a paused trial (`curve`, its place among the curves), or a new configuration."""

    curve: int
    n_epochs: int
    horizon: int
    until: int
    n_to_train: int
    drawn: Drawn | None = None


@dataclass(frozen=True, slots=True)
class FreezeThawScheduler:
    """Freezes and thaws trials by a Gaussian process over their curves."""

    spec: StudySpec
    draws: Candidates | None = None
    """Where new configurations come from; the study's space by default."""
    _fits: dict[tuple[int, bytes], Floats] = field(default_factory=dict)
    """A memory, not a state: a fit is a function of the rows that it was made from."""
    _spaces: list[tuple[Coordinates, Candidates, Pool]] = field(default_factory=list)

    def decide(self, history: History) -> Decision:
        """The next step: the likeliest to give a new best, or another of the first rung."""
        if reason := history.is_over():
            return history.ended(reason)
        curves = self._curves(history)
        decision = self._wanted(history, curves)
        if isinstance(decision, Done):
            return self._finish(history, curves) or decision
        if isinstance(decision, Start | Continue):
            return self._finish(history, curves, besides=decision) or decision
        return decision

    def _wanted(self, history: History, curves: Sequence[Curve]) -> Decision:
        if history.may_start():
            fixed = fixed_start(self.spec, history)
            if fixed is not None:
                return replace(fixed, until_epoch=1, why={"by": "enqueued"})
            first = self._first_rung(history)
            if first is not None:
                return first
        try:
            return self._modelled(history, curves)
        except (np.linalg.LinAlgError, FloatingPointError) as error:
            return _said(AshaScheduler(self.spec).decide(history), f"the model fails ({error}): asha decides")

    def _longest(self) -> int:
        if self.spec.max_epochs is None:
            raise AssertionError("a specification with a pausing scheduler has max_epochs")
        return self.spec.max_epochs

    def _finish(
        self, history: History, curves: Sequence[Curve], besides: Start | Continue | None = None
    ) -> Continue | None:
        """The best trial to its end: when nothing else is to be done, or when that would take what this needs."""
        seen = [c for c in curves if c.n_epochs and not c.diverged]
        best = max(seen, key=lambda c: (c.values[-1], -c.trial.number), default=None)
        if best is None or best.trial.number not in history.paused or not math.isfinite(best.values[-1]):
            return None
        left, needed = history.epochs_left(), best.horizon - best.n_epochs
        if besides is not None:
            if left is None or self.spec.n_epochs is None or needed > FINISH_SHARE * self.spec.n_epochs:
                return None
            reached = 0 if isinstance(besides, Start) else len(history.trials[besides.number].intermediate_values)
            cost = (besides.until_epoch or self._longest()) - reached
            if left - cost >= needed or (isinstance(besides, Continue) and besides.number == best.trial.number):
                return None
        why = {"by": "finish", "value": float(best.values[-1])}
        return within_budget(Continue(best.trial.number, best.horizon, why), history)

    def _first_rung(self, history: History) -> Start | None:
        """The next of a wide first rung, if it is its turn."""
        width = max(FIRST, min(FIRST_RUNG, self._longest()))
        if history.n_trials is not None:
            width = min(width, history.n_trials)
        begun = history.n_started()
        if begun >= width:
            return None
        if begun >= FIRST:
            chance = np.random.default_rng(derived_seed(self.spec.seed, history.n_steps(), "widen")).random()
            if chance >= WIDEN_SHARE:
                return None
        rng = np.random.default_rng(derived_seed(self.spec.seed, 0, "first rung"))
        taken = sum(step.why.get("by") == "first rung" for step in history.steps)  # a failed one is not tried again
        tried = {configuration_key(t.params) for t in history.trials}
        spread = list(self._space()[1].spread(rng, width))[taken:]
        drawn = next((one for one in spread if configuration_key(one.suggested) not in tried), None)
        if drawn is None:  # a space of a few choices
            return None
        return Start(_suggested(drawn), until_epoch=1, why={"by": "first rung"})

    def _space(self) -> tuple[Coordinates, Candidates, Pool]:
        if not self._spaces:
            coordinates = Coordinates(self.spec.suggest, frozenset({"epochs"}))
            draws = self.draws or Draws(self.spec.suggest)
            self._spaces.append((coordinates, draws, Pool(self.spec.seed, draws, coordinates)))
        return self._spaces[0]

    def _curves(self, history: History) -> list[Curve]:
        seen = [t for t in history.trials if t.state not in {TrialState.FAIL, TrialState.WAITING}]
        return [curve_of(self.spec, t, history.horizon(t) or self._longest()) for t in seen]

    def _modelled(self, history: History, curves: Sequence[Curve]) -> Decision:
        coordinates, _, _ = self._space()
        points = coordinates.encode([c.trial.params for c in curves])
        rows = observations(curves, points, self._longest())
        if rows is None or np.ptp(rows.values) == 0:
            raise np.linalg.LinAlgError("all observations are alike")
        posterior = Posterior(thinned(rows, MAX_ROWS), self._theta(history, curves, points))
        posterior = _with_pending(posterior, history, curves, points, self._longest())
        rng = np.random.default_rng(derived_seed(self.spec.seed, history.n_steps(), "decision"))
        paused = list(self._paused(history, curves))
        new, new_points = self._new(history, curves)
        candidates = [*paused, *new]
        if not candidates:
            return history.ended("every trial is at its end")
        at = np.concatenate([points[[c.curve for c in paused]], new_points])
        reach = math.exp(rng.uniform(0, math.log(max(2, self._longest()))))
        threshold = float(rows.values.max()) + 10 ** rng.uniform(*THRESHOLDS)
        ends = np.array([min(c.n_epochs + reach, c.horizon) for c in candidates])
        owners = np.array([c.curve for c in candidates], dtype=np.int64)
        mean, spread = posterior.predict(at, relative_time(ends, self._longest()), owners)
        chances = log_ndtr((mean - threshold) / spread)
        if not history.may_start():
            limits = relative_time(np.array([float(c.horizon) for c in candidates]), self._longest())
            mean, spread = posterior.predict(at, limits, owners)
            chance = math.exp(log_ndtr((mean - rows.values.max() - 10 ** THRESHOLDS[0]) / spread).max())
            if chance < WORTH_GOING_ON:
                return history.ended(f"no paused trial has a chance of {WORTH_GOING_ON:.0%}")
        scores = chances - COST_WEIGHT * np.log(self._costs(candidates, at, curves, points))
        order = np.argsort(-scores, kind="stable")
        best = int(order[0])
        until = np.array([float(candidates[best].until)])
        expected = posterior.predict(at[[best]], relative_time(until, self._longest()), owners[[best]])
        why = {
            "by": "freeze_thaw",
            "mean": round(float(expected[0][0]), 4),
            "spread": round(float(expected[1][0]), 4),
            "chance": float(f"{math.exp(chances[best]):.4g}"),
            "runner_up": next(
                (curves[candidates[i].curve].trial.number for i in order[1:] if candidates[i].drawn is None), None
            ),
        }
        return self._decided(history, curves, candidates[best], why)

    def _decided(
        self, history: History, curves: Sequence[Curve], chosen: _Candidate, why: Mapping[str, Any]
    ) -> Decision:
        if chosen.drawn is not None:
            return Start(_suggested(chosen.drawn), until_epoch=chosen.until, why=why)
        return within_budget(Continue(curves[chosen.curve].trial.number, chosen.until, why), history)

    def _paused(self, history: History, curves: Sequence[Curve]) -> Iterator[_Candidate]:
        for i, curve in enumerate(curves):
            if curve.trial.number in history.paused and curve.n_epochs < curve.horizon:
                until = next(r for r in rungs(curve.horizon) if r > curve.n_epochs)
                lost = int(curve.trial.user_attrs.get(DROPPED, 0))
                yield _Candidate(i, curve.n_epochs, curve.horizon, until, until - curve.n_epochs + lost)

    def _new(self, history: History, curves: Sequence[Curve]) -> tuple[list[_Candidate], Floats]:
        """What may be started, and its points."""
        coordinates, _, pool = self._space()
        if not history.may_start():
            return [], coordinates.encode([])
        best = sorted(curves, key=lambda c: (-c.values.max(initial=-math.inf), c.trial.number))[:N_BEST]
        tried = self._tried(history)
        candidates, points = [], []
        for key, drawn, point in pool.at(history.n_steps(), [c.trial for c in best]):
            longest = horizon(self.spec, drawn.params) or self._longest()
            if longest > tried.get(key, 0):
                candidates.append(_Candidate(-1, 0, longest, 1, 1, drawn))
                points.append(point)
        return candidates, np.array(points) if points else coordinates.encode([])

    def _tried(self, history: History) -> dict[str, float]:
        """Of each configuration how many epochs need no new trial: those that its own has had, or may still get."""
        found: dict[str, float] = {}
        for trial in history.trials:
            is_whole = trial.state == TrialState.COMPLETE
            epochs = history.horizon(trial) or self._longest() if is_whole else math.inf
            key = configuration_key(trial.params)
            found[key] = max(found.get(key, 0.0), epochs)
        return found

    def _costs(self, candidates: Sequence[_Candidate], at: Floats, curves: Sequence[Curve], points: Floats) -> Floats:
        """What each candidate's step costs: epochs, or seconds as a linear model of those seen predicts them."""
        epochs = np.array([c.n_to_train for c in candidates], dtype=float)
        if self.spec.step_cost == "epochs":
            return epochs
        timed = [i for i, c in enumerate(curves) if c.n_epochs and c.trial.user_attrs.get(SECONDS)]
        if not timed:
            return epochs
        seconds = np.log([curves[i].trial.user_attrs[SECONDS] / curves[i].n_epochs for i in timed])
        centre, seen = points[timed].mean(0), points[timed] - points[timed].mean(0)
        slopes = np.linalg.solve(seen.T @ seen + np.eye(seen.shape[1]), seen.T @ (seconds - seconds.mean()))
        costs: Floats = epochs * np.exp(seconds.mean() + (at - centre) @ slopes)
        return costs

    def _theta(self, history: History, curves: Sequence[Curve], points: Floats) -> Floats:
        """The model's parameters, fitted to what was known some decisions ago: often at first, then more rarely."""
        order, longest = history.n_steps(), self._longest()
        known = order - order % (10 if order < 200 else 25)
        limits: dict[int, int] = {}
        for step in history.steps[:known]:
            limits[step.number] = max(limits.get(step.number, 0), step.until or longest)
        rows = observations(curves, points, longest, limits) or observations(curves, points, longest)
        if rows is None:
            raise np.linalg.LinAlgError("nothing is observed")
        rows = thinned(rows, MAX_FIT_ROWS)
        key = (known, b"".join(part.tobytes() for part in rows.parts()))
        if key not in self._fits:
            self._fits.clear()
            self._fits[key] = fit(rows)
        return self._fits[key]


def _with_pending(
    posterior: Posterior, history: History, curves: Sequence[Curve], points: Floats, longest: int
) -> Posterior:
    """The posterior as it would be if every running trial came out as predicted."""
    running = {t.number: history.target(t) for t in history.running()}
    pending: Ints = np.array([i for i, c in enumerate(curves) if c.trial.number in running], dtype=np.int64)
    if not len(pending):
        return posterior
    times = relative_time(np.array([running[curves[i].trial.number] for i in pending], dtype=float), longest)
    mean, _ = posterior.predict(points[pending], times, pending)
    return posterior.given(Rows(points[pending], times, pending, mean))


def _suggested(drawn: Drawn) -> Suggested:
    return Suggested(drawn.suggested, drawn.distributions, drawn.params)


def _said(decision: Decision, note: str) -> Decision:
    return replace(decision, why={**decision.why, "note": note}) if isinstance(decision, Start | Continue) else decision
