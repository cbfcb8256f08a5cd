"""What Optuna's sampler, a user, or the study itself proposes next.

The sampler is asked in a copy of the study in memory and made anew for each ask, seeded from (study seed, trial
number): so a resumed search proposes what an uninterrupted one would, and what it proposed is stored in one
transaction, whole or not at all.
"""

import copy
import warnings
from collections.abc import Callable, Container

import optuna
from optuna import pruners, samplers
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import UserError
from hpo.schedulers.protocol import History, Start, Suggested
from hpo.seeds import derived_seed
from hpo.space import grid
from hpo.spec import Params, StudySpec

PATIENCE_EPOCHS = 10
MANY = 1_000
"""Of so many trials a sampler sees all in any case."""
ENQUEUED = "hpo.enqueued"


def propose(spec: StudySpec, history: History) -> Start | None:
    """The next new trial: one that waits in the store, an enqueued configuration, or the sampler's proposal.

    Returns:
        None where a grid has no cell left.

    Raises:
        UserError: the study's own functions raise, or the store holds values that no sampler takes.
    """
    return fixed_start(spec, history) or _proposed(spec, history, None, None)


def has_fixed(spec: StudySpec, history: History) -> bool:
    """Whether something is there that is to be tried whatever a model says."""
    return _waiting(history) is not None or _untried(spec, history) is not None


def _waiting(history: History) -> FrozenTrial | None:
    return next((t for t in history.open if t.state is TrialState.WAITING), None)


def _untried(spec: StudySpec, history: History) -> Params | None:
    if not spec.enqueue:
        return None
    tried = [t.user_attrs.get(ENQUEUED) for t in history.trials]
    return next((params for params in spec.enqueue if dict(params) not in tried), None)


def fixed_start(spec: StudySpec, history: History) -> Start | None:
    """What is to be tried first, whatever a model would say: trials that wait in the store, then what is enqueued.

    Raises:
        UserError: as `propose`.
    """
    if (waiting := _waiting(history)) is not None:
        return _proposed(spec, history, waiting.system_attrs.get("fixed_params", {}), waiting.number)
    fixed = _untried(spec, history)
    return None if fixed is None else _proposed(spec, history, fixed, None)


def _proposed(spec: StudySpec, history: History, fixed: Params | None, waiting: int | None) -> Start | None:
    number = len(history.trials) if waiting is None else waiting
    try:
        sampler = make_sampler(spec, number)
        study = _copy(history, sampler, make_pruner(spec))
        if fixed is None and isinstance(sampler, samplers.GridSampler) and sampler.is_exhausted(study):
            return None
        if fixed is not None:
            study.enqueue_trial(dict(fixed))
        return Start(_asked(spec, study, history, fixed), waiting)
    except UserError:
        raise
    except Exception as error:  # the study's own functions, or values that somebody has put into the store
        raise UserError(f"no proposal for trial {number}: {type(error).__name__}: {error}") from error


def _asked(spec: StudySpec, study: Study, history: History, fixed: Params | None) -> Suggested:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        trial = study.ask()
        params = dict(spec.suggest(trial))
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
    is_grid = isinstance(sampler, samplers.GridSampler)
    trials = [
        t
        if t.state is TrialState.COMPLETE or (t.state is TrialState.PRUNED and not is_grid)
        else _as_seen(t, paused=t.number in history.paused, is_grid=is_grid)
        for t in history.trials
    ]
    storage = _Shown(trials, [*trials] if is_grid else [*within(history, trials)], history.best(1))
    study = optuna.create_study(
        study_name=history.spec.name, direction=history.spec.direction, sampler=sampler, pruner=pruner, storage=storage
    )
    storage.show()
    for name, value in history.study_attrs.items():
        storage.set_study_system_attr(study._study_id, name, value)  # noqa: SLF001
    return study


class _Shown(InMemoryStorage):
    """A study in memory that has trials without copying them: samplers and pruners only read them.

    Args:
        trials: all there are, by number, so that the next one has its number.
        seen: those of them that are shown to whoever asks for all.
        best: number of the best one, where there is one.
    """

    def __init__(self, trials: list[FrozenTrial], seen: list[FrozenTrial], best: list[int]) -> None:
        super().__init__()
        self._all, self._seen, self._best, self._n_shown = trials, seen, best, len(trials)

    def show(self) -> None:
        """Give the trials to the one study there is."""
        (study,) = self._studies.values()
        study.trials = self._all
        self._max_trial_id = max((t._trial_id for t in self._all), default=-1)  # noqa: SLF001

    def get_best_trial(self, study_id: int) -> FrozenTrial:  # noqa: ARG002  Optuna's own signature
        """The best one, for samplers that ask for it."""
        if not self._best:
            raise ValueError("No trials are completed yet.")  # Optuna's own words
        return self._all[self._best[0]]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  Optuna's own signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Those that are shown, and what was added since."""
        added = self._studies[study_id].trials[self._n_shown :]
        found = [t for t in (*self._seen, *added) if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found


def within(history: History, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that a sampler sees, by number: in a study of very many the best, the latest and those at work.

    TPE models its 25 best trials against all others, and its own arithmetic over ten thousand takes longer than all
    else of an ask; of trials that were neither good nor late it learns little.
    """
    limit = history.spec.sampler_trials
    if limit is None or len(trials) <= max(MANY, limit):
        return trials
    numbers = {*history.best(limit // 5)}
    for number in range(len(trials) - 1, -1, -1):
        if len(numbers) >= limit:
            break
        numbers.add(number)
    numbers.update(t.number for t in history.running())
    return [trials[number] for number in sorted(numbers)]


def _as_seen(trial: FrozenTrial, *, paused: bool, is_grid: bool) -> FrozenTrial:
    """A trial as the sampler is to see it.

    One that waits is nothing yet, but has its number. One that is paused is seen as pruned where it stands. To a grid a
    running cell is taken, and a failed one free again.
    """
    if trial.state == TrialState.WAITING:
        nothing = create_trial(state=TrialState.FAIL)
        nothing.number = trial.number
        return nothing
    if paused:
        seen = copy.copy(trial)
        seen.state, seen.datetime_complete = TrialState.PRUNED, trial.datetime_start
        return seen
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
