"""What is written into Optuna's own tables is what Optuna would have written."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.rows import add_trial, fill_trial, read_trials
from hpo.storage import Store, open_store

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text("aé%'{\\", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
ATTRS = st.dictionaries(st.text("ab.%'é", min_size=1, max_size=5), JSON, max_size=4)


@st.composite
def templates(draw) -> FrozenTrial:
    distributions = {
        "x": FloatDistribution(1e-4, 1.0, log=True), "n": IntDistribution(1, 9, step=2),
        "kind": CategoricalDistribution(("a", None, 3, True)),
    }  # fmt: skip
    params = {
        "x": draw(st.floats(1e-4, 1.0)), "n": draw(st.sampled_from((1, 5, 9))),
        "kind": draw(st.sampled_from(("a", None, 3, True))),
    }  # fmt: skip
    names = draw(st.sets(st.sampled_from(sorted(params))))
    return create_trial(
        state=TrialState.RUNNING,
        params={name: params[name] for name in names},
        distributions={name: distributions[name] for name in names},
        user_attrs=draw(ATTRS),
        system_attrs=draw(ATTRS),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request, tmp_path_factory) -> Store:
    if request.param == "postgresql":
        return open_store(request.getfixturevalue("postgres").url(uuid.uuid4().hex))
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('rows') / 'hpo.db'}")


@settings(max_examples=40, deadline=None)
@given(templates())
def test_a_trial_is_stored_as_optuna_itself_would_store_it(store, template):
    ours, theirs = (optuna.create_study(storage=store.storage) for _ in range(2))
    for number in range(2):
        trial_id = add_trial(store.engine, ours._study_id, template)
        theirs._storage.create_new_trial(theirs._study_id, template_trial=template)

        mine, their = ours.trials[number], theirs.trials[number]

        assert trial_id == mine._trial_id
        for field in ("number", "state", "params", "distributions", "user_attrs", "system_attrs", "values"):
            assert getattr(mine, field) == getattr(their, field), field
        assert list(mine.params) == list(their.params)
        assert mine.datetime_complete is None
        assert mine.datetime_start is not None
        assert abs((mine.datetime_start - their.datetime_start).total_seconds()) < 60
    assert ours.trials[0].intermediate_values == {}
    ours._storage.set_trial_intermediate_value(trial_id, 0, 0.5)
    ours.tell(1, 0.5)
    assert ours.best_value == 0.5


@settings(max_examples=20, deadline=None)
@given(templates())
def test_a_trial_that_waits_is_filled_as_optuna_itself_would_fill_it_and_once(store, template):
    study = optuna.create_study(storage=store.storage)
    study.enqueue_trial({"x": 0.25}, user_attrs={"a": "enqueued", "other": 1})
    (waiting,) = study.trials

    filled = [fill_trial(store.engine, waiting._trial_id, template) for _ in range(2)]

    (trial,) = study.trials
    assert filled == [True, False]
    assert trial.state == TrialState.RUNNING
    assert (trial.number, trial.params, trial.distributions) == (0, template.params, template.distributions)
    assert trial.user_attrs == {**waiting.user_attrs, **template.user_attrs}
    assert trial.system_attrs == {**waiting.system_attrs, **template.system_attrs}
    assert trial.datetime_start is not None
    study.tell(0, 0.5)
    assert study.best_value == 0.5


@pytest.fixture
def _hour_of_kolkata(monkeypatch):
    """Local time is not UTC: where it is, one in place of the other would not be seen."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


NUMBERS = st.floats(allow_nan=False)


@st.composite
def ended(draw) -> FrozenTrial:
    """A trial in any state, with what it may have in it."""
    template = draw(templates())
    template.state = draw(st.sampled_from(TrialState))
    template.intermediate_values = draw(st.dictionaries(st.integers(0, 300), st.floats(), max_size=4))
    template.values = draw(st.lists(NUMBERS, min_size=2, max_size=2))
    if template.state != TrialState.COMPLETE and draw(st.booleans()):
        template.values = None
    if template.state.is_finished():
        template.datetime_complete = template.datetime_start
    return template


def told(trial: FrozenTrial) -> str:
    """All that a trial has: NaN is as good as NaN, and the order of attributes and values means nothing."""
    unordered = ("_user_attrs", "_system_attrs", "intermediate_values")
    return repr([sorted(vars(trial)[name].items()) if name in unordered else (name, value)
                 for name, value in sorted(vars(trial).items())])  # fmt: skip


@pytest.mark.usefixtures("_hour_of_kolkata")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ended(), max_size=6), st.data())
def test_trials_are_read_as_optuna_itself_would_read_them(store, templates, data):
    optunas = optuna.storages.RDBStorage(store.url)
    study_id = optuna.create_study(storage=optunas, directions=["minimize", "maximize"])._study_id
    ids = [optunas.create_new_trial(study_id, template) for template in templates]
    optuna.create_study(storage=optunas).add_trial(create_trial(value=0.5))  # which is none of them
    included = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    after = data.draw(st.sampled_from([-1, *ids]))
    states = data.draw(st.none() | st.sets(st.sampled_from(TrialState)))

    ours = read_trials(store.engine, study_id, states, included, after)

    theirs = optunas._get_trials(study_id, states, included, after)
    assert [told(t) for t in ours] == [told(t) for t in theirs]
    optunas.scoped_session.remove()
    optunas.engine.dispose()


def test_more_trials_than_are_read_at_once_are_read_in_their_order(store):
    study = optuna.create_study(storage=store.storage)
    study.add_trials([create_trial(value=float(n), intermediate_values={0: float(n)}) for n in range(230)])
    other = optuna.load_study(study_name=study.study_name, storage=open_store(store.url).storage)

    trials = other.get_trials()

    assert [(t.number, t.value, t.intermediate_values) for t in trials] == [(n, n, {0: n}) for n in range(230)]


def test_trials_of_a_study_that_is_not_there_are_not_read(store):
    with pytest.raises(KeyError, match="no study of id 4711"):
        read_trials(store.engine, 4711, None, set(), -1)


@pytest.mark.usefixtures("_hour_of_kolkata")
def test_it_begins_now_in_local_time(store):
    study = optuna.create_study(storage=store.storage)

    add_trial(store.engine, study._study_id, create_trial(state=TrialState.RUNNING))

    began = study.trials[0].datetime_start
    assert began is not None
    assert abs(time.time() - began.timestamp()) < 600  # a naive time is taken for local


def test_all_of_it_is_stored_or_nothing(store):
    study = optuna.create_study(storage=store.storage)
    template = create_trial(
        state=TrialState.RUNNING,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
        user_attrs={"a": 1},
        system_attrs={"no_json": object()},
    )

    with pytest.raises(TypeError):
        add_trial(store.engine, study._study_id, template)

    assert study.trials == []


def test_of_a_study_that_is_not_there_no_trial_is_left(store):
    with pytest.raises(KeyError, match="no study of id 4711"):
        add_trial(store.engine, 4711, create_trial(state=TrialState.RUNNING))

    with store.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trials WHERE study_id = 4711").scalar() == 0


def test_whoever_adds_trials_by_optunas_own_means_at_once_gets_other_numbers(store):
    study = optuna.create_study(storage=store.storage)
    name, study_id = study.study_name, study._study_id

    def add(which: int) -> None:
        own = open_store(store.url)
        for _ in range(5):
            if which % 2:
                optuna.load_study(study_name=name, storage=own.storage).enqueue_trial({"x": 0.5})
            else:
                add_trial(own.engine, study_id, create_trial(state=TrialState.RUNNING, user_attrs={"a": 1}))
        own.engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(add, range(6)))

    assert [t.number for t in study.get_trials()] == list(range(30))
