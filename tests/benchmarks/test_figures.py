"""What the benchmarks make of what they have measured."""

import pytest

from benchmarks.searching.methods import Trace, is_variant
from benchmarks.searching.tables import Cell, cost_ratio, regrets
from benchmarks.searching.tasks import Curve, closed_form
from benchmarks.study import _figures, _ratios


def cell(method="ours", task="a", **change) -> Cell:
    fields = {
        "epochs": [1, 4, 9], "regrets": [0.5, 0.2, 0.1], "budget": 20, "longest": 10, "decision_mean": 0.0,
        "decision_p95": 0.0, "clock": [2.0, 8.0, 30.0], "seconds": 60.0,
    }  # fmt: skip
    return Cell(method=method, family="f", task=task, seed=0, **{**fields, **change})


def test_a_cost_is_when_a_quality_was_reached_for_good_and_a_miss_costs_all():
    assert (cell().cost_to(0.5), cell().cost_to(0.2), cell().cost_to(0.05)) == (1, 4, 20)
    assert (cell().seconds_to(0.5), cell().seconds_to(0.2), cell().seconds_to(0.05)) == (2, 8, 60)
    worse_again = cell(regrets=[0.1, 0.3, 0.05])
    assert worse_again.cost_to(0.2) == 9


def test_regret_is_the_untrained_networks_until_something_was_found():
    assert cell().regret_at(0.5) == 1.0
    assert regrets([cell()])["ours"][1] == 0.1


def test_the_ratio_of_costs_is_to_what_the_other_ends_with_in_epochs_or_seconds():
    late = {"epochs": [8, 16], "regrets": [0.6, 0.2], "clock": [4.0, 32.0]}
    cells = [cell(task=task) for task in "abcdef"] + [cell("other", task, **late) for task in "abcdef"]

    in_epochs, in_seconds = cost_ratio(cells, "ours", "other"), cost_ratio(cells, "ours", "other", Cell.seconds_to)

    assert in_epochs is not None
    assert in_seconds is not None
    assert in_epochs.mean == pytest.approx(4 / 16)
    assert in_seconds.mean == pytest.approx(8 / 32)
    assert (in_epochs.our_misses, in_epochs.other_misses) == (0, 0)


def test_a_trace_pays_for_every_epoch_and_takes_the_incumbent_by_what_is_seen():
    *_, curve = closed_form("smooth").curve({"learning_rate": 0.3, "dropout": 0.3, "optimizer": "sgd"}, set())
    timed = Curve(curve.seen, curve.scored * 0.9, curve.seen * 0 + 2.0)
    trace = Trace()

    assert trace.go_on(timed, 0, 5, budget=100)
    assert not trace.go_on(timed, 5, 50, budget=7)

    assert (trace.spent, trace.seconds) == (7, 14.0)
    assert trace.clock == [2.0 * epoch for epoch in trace.epochs]
    assert trace.scored == pytest.approx([0.9 * timed.seen[epoch - 1] for epoch in trace.epochs])


def test_variants_stand_apart():
    assert [is_variant(name) for name in ("auto", "auto, no checkpoints", "auto, by seconds", "x, free resume")] == [
        False, True, True, True,
    ]  # fmt: skip


def test_a_studys_seconds_are_its_start_its_epochs_what_is_between_and_its_end():
    marks = [
        {"trial": "0", "began": 105.0, "ended": 110.0}, {"trial": "0", "began": 110.5, "ended": 115.0},
        {"trial": "1", "began": 116.0, "ended": 120.0},
    ]  # fmt: skip

    found = _figures(marks, 100.0, 121.0)

    assert found == {
        "wall": 21.0, "start_up": 5.0, "epochs": 13.5, "outside": 1.5, "outside_a_trial": 0.75, "shut_down": 1.0,
    }  # fmt: skip


def test_ratios_are_medians_of_those_of_a_turn():
    walls = {"ours": (10.0, 20.0, 40.0), "script": (20.0, 30.0, 100.0)}
    rows = [
        {"turn": turn, "name": name, "wall": values[turn], "outside": 1.0, "epochs": 9.0}
        for name, values in walls.items()
        for turn in range(3)
    ]

    assert dict(_ratios(rows)) == {"wall.script_over_ours": 2.0, "ours.outside_training_share": 0.1}
