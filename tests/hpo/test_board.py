"""What is kept of ended trials is what looking at all of them gives."""

from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from hpo.board import Board
from hpo.schedulers.protocol import DECISIONS, STUDY_ATTRS, History, Settled, Step
from hpo.spec import StudySpec
from hpo.tracked import rank, ranking

SPEC = StudySpec(
    name="s", suggest=lambda trial: {"x": trial.suggest_float("x", 0, 1)}, prepare=lambda _: None,  # type: ignore[return-value]
    metric="v",
    direction="minimize", n_epochs=50, max_epochs=3,
)  # fmt: skip
ENDS = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def trial(number, state, value):
    made = create_trial(
        state=state, value=value if state == TrialState.COMPLETE else None,
        user_attrs={DECISIONS: [Step(number, number, 0, None, {}).to_json()], "hpo.reason": "diverged: no"},
        system_attrs={STUDY_ATTRS: {"place": number}} if number % 3 == 0 else {}, intermediate_values={0: value},
    )  # fmt: skip
    made.number = number
    return made


@given(
    st.lists(st.tuples(st.sampled_from(ENDS), st.floats(-5, 5)), max_size=12),
    st.lists(st.sets(st.integers(0, 11)), max_size=4),
)
def test_however_trials_end_one_after_the_other_the_board_says_what_all_of_them_say(ends, order):
    board, ended = Board(SPEC), set()
    for more in [*order, set(range(12))]:
        ended |= more
        trials = [
            trial(number, state if number in ended else TrialState.RUNNING, value)
            for number, (state, value) in enumerate(ends)
        ]
        board.take_in(trials)

        assert board.order == [rank(SPEC, t.value or 0.0, t.number) for t in ranking(SPEC, trials)]
        assert board.study_attrs(trials) == ({"place": (len(trials) - 1) // 3 * 3} if trials else {})
        whole = History(SPEC, None, trials)
        known = History(SPEC, None, trials, settled=board.settled, best_first=board.order)
        for name in ("n_started", "n_steps", "running", "epochs_left"):
            assert getattr(known, name)() == getattr(whole, name)(), name
        assert known.best(3) == whole.best(3)
    assert board.settled.n == len(ends)


def test_nothing_is_settled_while_the_first_trial_runs():
    board = Board(SPEC)
    board.take_in([trial(0, TrialState.RUNNING, 1.0), trial(1, TrialState.COMPLETE, 2.0)])

    assert board.settled == Settled()
    assert board.order == [(2.0, 1)]
