"""Optuna's sampler proposes, every trial runs to its end unless Optuna's pruner stops it.

The sampler is asked in a copy of the study in memory and made anew for each ask, seeded from (study seed, trial
number): so a resumed search proposes what an uninterrupted one would, and what it proposed is stored in one
transaction, whole or not at all.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna import pruners, samplers
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import UserError
from hpo.schedulers import Continue, Decision, Done, History, Start, Suggested, Wait
from hpo.seeds import derived_seed
from hpo.space import grid
from hpo.spec import Params, StudySpec

PATIENCE_EPOCHS = 10
ENQUEUED = "hpo.enqueued"


@dataclass(frozen=True, slots=True)
class OptunaScheduler:
    """A sampler and a pruner of Optuna's, as the study names them."""

    spec: StudySpec

    def decide(self, history: History) -> Decision:
        """Go on with what was interrupted, then start trials until the budget is met."""
        if history.resting:
            return Continue(min(history.resting))
        bound = history.spec.n_epochs
        if bound is not None and history.n_epochs() >= bound:
            return Wait() if history.running() else Done(f"all {bound} epochs are trained")
        if history.n_trials is not None and history.n_started() >= history.n_trials:
            return Wait() if history.running() else Done(f"all {history.n_trials} trials are done")
        return self._propose(history)

    def _propose(self, history: History) -> Decision:
        waiting = next((t for t in history.trials if t.state == TrialState.WAITING), None)
        number = len(history.trials) if waiting is None else waiting.number
        try:
            sampler = make_sampler(self.spec, number)
            study = _copy(history, sampler, make_pruner(self.spec))
            if isinstance(sampler, samplers.GridSampler) and sampler.is_exhausted(study):
                return Wait() if history.running() else Done("every cell of the grid is done")
            fixed = self._fixed(history) if waiting is None else waiting.system_attrs.get("fixed_params", {})
            if fixed is not None:
                study.enqueue_trial(dict(fixed))
            return Start(self._asked(study, history, fixed), None if waiting is None else waiting.number)
        except UserError:
            raise
        except Exception as error:  # the study's own functions, or values that somebody has put into the store
            raise UserError(f"no proposal for trial {number}: {type(error).__name__}: {error}") from error

    def _fixed(self, history: History) -> Params | None:
        """The first enqueued configuration that was not tried yet."""
        tried = [t.user_attrs.get(ENQUEUED) for t in history.trials]
        return next((params for params in self.spec.enqueue if dict(params) not in tried), None)

    def _asked(self, study: Study, history: History, fixed: Params | None) -> Suggested:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = study.ask()
            params = dict(self.spec.suggest(trial))
        # A Trial has no public way to its attributes, nor a Study to the sampler's.
        frozen = trial.storage.get_trial(trial._trial_id)  # noqa: SLF001
        kept = trial.storage.get_study_system_attrs(study._study_id)  # noqa: SLF001
        return Suggested(
            suggested=frozen.params,
            distributions=frozen.distributions,
            params=params,
            user_attrs={**frozen.user_attrs, **({} if fixed is None else {ENQUEUED: dict(fixed)})},
            system_attrs=frozen.system_attrs,
            study_attrs={name: value for name, value in kept.items() if history.study_attrs.get(name) != value},
        )


def _copy(history: History, sampler: BaseSampler, pruner: BasePruner) -> Study:
    """The study in memory, with the same name (Hyperband's brackets hang on it) and the same trials."""
    study = optuna.create_study(
        study_name=history.spec.name, direction=history.spec.direction, sampler=sampler, pruner=pruner
    )
    storage, study_id = study._storage, study._study_id  # noqa: SLF001  `add_trial` would refuse RUNNING ones
    for name, value in history.study_attrs.items():
        storage.set_study_system_attr(study_id, name, value)
    is_grid = isinstance(sampler, samplers.GridSampler)
    for trial in history.trials:
        storage.create_new_trial(study_id, template_trial=_as_seen(trial, is_grid=is_grid))
    return study


def _as_seen(trial: FrozenTrial, *, is_grid: bool) -> FrozenTrial:
    """A trial as the sampler is to see it.

    One that waits is nothing yet, but has its number. To a grid a running cell is taken, and a failed one free again.
    """
    if trial.state == TrialState.WAITING:
        return create_trial(state=TrialState.FAIL)
    if is_grid and trial.state in {TrialState.RUNNING, TrialState.FAIL}:
        seen = copy.copy(trial)
        if trial.state == TrialState.RUNNING:
            seen.state, seen.datetime_complete = TrialState.PRUNED, trial.datetime_start
        else:
            seen.system_attrs = {k: v for k, v in trial.system_attrs.items() if k not in {"grid_id", "search_space"}}
        return seen
    return trial


def make_sampler(spec: StudySpec, number: int) -> BaseSampler:
    """The study's sampler for trial `number`. A new one is one more line here and a name in `spec.SAMPLERS`.

    CMA-ES is not offered: it unpickles what it finds in the database.
    """
    seed = derived_seed(spec.seed, number, "sampler") % 2**32  # what numpy's legacy generator takes
    # A grid's seed shuffles its cells: it must stay, or a cell's number would mean another cell each time.
    grid_seed = derived_seed(spec.seed, 0, "grid") % 2**32
    if callable(spec.sampler):
        made = spec.sampler(seed)
        return spec.sampler(grid_seed) if isinstance(made, samplers.GridSampler) else made
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed),
        "gp": lambda: samplers.GPSampler(seed=seed),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "qmc": lambda: samplers.QMCSampler(seed=seed, warn_independent_sampling=False, warn_asynchronous_seeding=False),
        "grid": lambda: samplers.GridSampler(grid(spec.suggest), seed=grid_seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[spec.sampler]()


def make_pruner(spec: StudySpec) -> BasePruner:
    """The study's pruner. A new pruner is one more line here and a name in `spec.PRUNERS`."""
    if callable(spec.pruner):
        return spec.pruner(derived_seed(spec.seed, 0, "pruner"))
    makers: dict[str, Callable[[], BasePruner]] = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "asha": pruners.SuccessiveHalvingPruner,
        "hyperband": lambda: pruners.HyperbandPruner(max_resource=spec.max_epochs or "auto"),
        "patience": lambda: pruners.PatientPruner(None, patience=PATIENCE_EPOCHS),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[spec.pruner]()
