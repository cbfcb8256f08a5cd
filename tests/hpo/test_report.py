"""The report: what it says first, what it draws, and that no study breaks it."""

import argparse
import dataclasses
import json
import math
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpo import confirmation, report
from hpo.report_claim import claim, confirmed_table, paper_table
from hpo.report_facts import gather
from hpo.report_figures import MAX_LINES, figures, time_figures
from hpo.report_page import page
from hpo.report_review import Review, review
from hpo.report_times import saved, saved_words, spent
from hpo.report_values import difference_words, outcome, value_words
from hpo.schedulers.proposals import ENQUEUED
from hpo.schedulers.protocol import SECONDS
from hpo.spec import StudySpec
from hpo.times import TIMES
from hpo.tracked import ranking
from tests.hpo.toy import write_toy

LOADS = re.compile(r"""(?:src=|url\(|import )["']?https?://[^"')]+""")
NASTY = "<script>alert('x')</script> & <img src=https://example.org/a.png>"
SPACE = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "size": CategoricalDistribution([16, 32, 64]),
    "kind": CategoricalDistribution(["a", NASTY]),
    "deep": IntDistribution(1, 9),
}


def no_trainer(_context):
    raise NotImplementedError


def spec(**fields):
    return StudySpec(
        **{"name": "s", "suggest": lambda _t: {}, "prepare": no_trainer, "metric": "val_accuracy", **fields}
    )


def a_trial(value, *, state=TrialState.COMPLETE, reason=None, epochs=(0.1, 0.2), seconds=10.0, attrs=None, **params):
    attrs = {
        **(attrs or {}),
        SECONDS: seconds,
        TIMES: {"training": seconds},
        **({"hpo.reason": reason} if reason else {}),
    }
    return create_trial(
        state=state, value=value, params=params, distributions={name: SPACE[name] for name in params},
        intermediate_values=dict(enumerate(epochs)), user_attrs=attrs,
    )  # fmt: skip


def a_study(*trials, direction="maximize"):
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    return study


def options(folder, **given):
    flags = {"study": "s", "storage": "sqlite:///hpo.db", "workdir": str(folder), "data": None, "device": None}
    return argparse.Namespace(**{**flags, "tracking_uri": None, "mirror": None, **given})


def the_page(folder, study, of=None):
    return page(gather(of or spec(), study, None, options(folder)), Review([]))


def confirmed_of(*rows, params=None):
    """What is confirmed of (trial, what the search saw, values by seed); trial 0 is the baseline."""
    retrained = [
        confirmation.Retrained(
            trial=number,
            params=params or {},
            is_baseline=number == 0,
            searched=searched,
            trials=tuple(range(len(values))),
            values=values,
        )
        for number, searched, values in rows
    ]
    return confirmation.confirmed(retrained, study="s", metric="val_accuracy", direction="maximize")


def a_confirmation(**changes):
    rows = (4, 0.66, (0.63, 0.64, 0.65)), (0, 0.60, (0.58, 0.59, 0.60))
    return dataclasses.replace(confirmed_of(*rows, params={"rate": 0.1}), **changes)


MIXED = (
    a_trial(0.5, rate=0.1, size=16, kind="a"),
    a_trial(0.7, rate=0.01, size=32, kind=NASTY, deep=3),
    a_trial(0.6, state=TrialState.PRUNED, reason="paused when the study ended", rate=0.5, size=64, kind="a"),
    a_trial(None, state=TrialState.PRUNED, reason="stopped", rate=0.9, size=64, kind="a"),
    a_trial(None, state=TrialState.PRUNED, reason="diverged: loss is nan", epochs=(0.1, math.nan), rate=0.9),
    a_trial(None, state=TrialState.FAIL, reason=NASTY, epochs=(), rate=0.9),
    a_trial(None, state=TrialState.RUNNING, rate=0.2),
)
AWKWARD = {
    "one trial": [a_trial(0.5, rate=0.1)],
    "one parameter": [a_trial(0.1 * n, rate=0.1 * n) for n in range(1, 5)],
    "no parameter": [a_trial(0.5), a_trial(0.6)],
    "all pruned": [a_trial(None, state=TrialState.PRUNED, rate=0.1), a_trial(0.3, state=TrialState.PRUNED, rate=0.2)],
    "all failed": [a_trial(None, state=TrialState.FAIL, epochs=(), rate=0.1)],
    "conditional": [a_trial(0.5, rate=0.1), a_trial(0.6, deep=2), a_trial(0.7, rate=0.2, deep=3)],
    "equal values": [a_trial(0.5, rate=0.1, size=16), a_trial(0.5, rate=0.2, size=32)],
    "not finite": [a_trial(math.inf, rate=0.1, size=16, epochs=(math.nan, math.inf)), a_trial(0.5, rate=0.2, size=16)],
    "a single choice": [
        create_trial(value=v, params={"only": "x", "rate": r}, distributions={"only": CategoricalDistribution(["x"]), "rate": SPACE["rate"]})
        for v, r in ((0.1, 0.1), (0.2, 0.2))
    ],
    "wider later": [
        create_trial(value=v, params={"x": v, "rate": v}, distributions={"x": FloatDistribution(0, h), "rate": SPACE["rate"]})
        for v, h in ((0.1, 1), (0.2, 2), (0.3, 2))
    ],
    "mixed": list(MIXED),
}  # fmt: skip


@pytest.mark.parametrize("name", AWKWARD)
def test_no_study_breaks_a_figure(tmp_path, name):
    study = a_study(*AWKWARD[name])
    trials = study.get_trials(deepcopy=False)

    drawn = [*figures(spec(), trials, ranking(spec(), trials)), *time_figures(spec(), trials)]

    assert len(drawn) == 7
    assert [f.title for f in drawn if "can't be drawn" in f.words] == []
    assert all(f.json is not None or f.words for f in drawn)
    assert the_page(tmp_path, study).endswith("</html>")


def test_what_can_not_be_computed_is_said_in_its_place():
    def words_of(trials):
        trials = a_study(*trials).get_trials()
        return {f.title: f.words for f in figures(spec(), trials, ranking(spec(), trials)) if f.json is None}

    assert words_of(AWKWARD["all failed"]).keys() == {
        "Optimization history", "Learning curves", "Importance of the parameters", "Each parameter by itself",
        "All parameters together",
    }  # fmt: skip
    assert "two or more" in words_of(AWKWARD["one parameter"])["Importance of the parameters"]
    assert "different values" in words_of(AWKWARD["equal values"])["Importance of the parameters"]
    assert words_of(MIXED) == {}


def test_figures_keep_numbers_log_axes_and_stay_thin():
    rng = np.random.default_rng(0)
    many = [
        a_trial(float(v), rate=float(10 ** -rng.uniform(0, 4)), size=16, epochs=(0.123456789,))
        for v in rng.uniform(size=MAX_LINES + 50)
    ]
    trials = a_study(a_trial(None, state=TrialState.FAIL, epochs=()), *many).get_trials()

    history, curves, _, slices, parallel = (
        json.loads(f.json) for f in figures(spec(), trials, ranking(spec(), trials)) if f.json
    )

    assert min(history["data"][0]["x"]) == 1  # the first one failed
    assert len(curves["data"]) == 10
    assert curves["data"][0]["y"][0] == 0.12346
    assert slices["layout"]["xaxis"]["type"] == "log"
    assert len(parallel["data"]) <= 14
    assert sum(v is None for t in parallel["data"][:-1] for v in t["y"]) == MAX_LINES


def test_a_few_values_that_are_far_worse_do_not_flatten_the_others():
    of = spec(metric="loss", direction="minimize")
    trials = a_study(
        *(a_trial(0.1 * n, rate=0.1) for n in range(1, 12)), a_trial(4e6, rate=0.9), direction="minimize"
    ).trials

    history, *_, slices, parallel = figures(of, trials, ranking(of, trials))

    assert json.loads(history.json)["layout"]["yaxis"]["range"] == pytest.approx([0.05, 1.15])
    assert "Far worse, and out of sight: 1." in history.words
    assert "Far worse, and left out: 1." in slices.words
    assert "Far worse, and left out: 1." in parallel.words
    assert "Far worse" not in next(figures(of, trials[:-1], ranking(of, trials[:-1]))).words


def test_the_claim_names_the_best_its_gain_and_that_it_is_not_confirmed():
    baseline = {"rate": 0.1, "size": 16}
    study = a_study(a_trial(0.5, attrs={ENQUEUED: baseline}, **baseline), a_trial(0.7, rate=0.01, size=32))
    of = spec(enqueue=(baseline,))

    words = claim(of, ranking(of, study.trials), None, "python -m hpo.confirm --study s")

    assert words[0] == (
        "Of 2 trials with a value, trial 1 has the best val_accuracy: 70.00 % in its best epoch, with rate 0.01, size 32."
    )
    assert words[1] == "That is 20.00 points better than the baseline, trial 0 (50.00 %)."
    assert "not confirmed" in words[2]
    assert words[2].endswith(": python -m hpo.confirm --study s")
    assert "No trial" in claim(of, [], None, "s")[0]


def test_a_confirmed_claim_says_by_how_much_and_how_sure():
    test = confirmation.Test(
        metric="accuracy", values=(0.61, 0.62, 0.63), estimate=confirmation.estimate((0.61, 0.62, 0.63)),
        champion=0.63, champion_low=0.614, champion_high=0.646, n_images=3589, scorings=1,
    )  # fmt: skip

    words = " ".join(claim(spec(), [], a_confirmation(test=test), "s"))

    assert "trial 4 is best, with rate 0.1: val_accuracy 64.00 % on 3 fresh seeds (95 % interval " in words
    assert (
        "It is 5.00 points better than the baseline; that may be chance: too few seeds differ for an interval." in words
    )
    assert "accuracy 62.00 % over 3 networks" in words
    assert "63.00 % (61.40 % to 64.60 % from 3,589 images)" in words
    assert "whose lower end allows for its choice among 2" in words
    assert "With 95 % confidence" not in words  # the baseline is the only other one
    assert "seen the configuration of trial 4 2.00 points better" in words  # the baseline was not chosen
    assert confirmed_table(a_confirmation()).rows[1][0] == "0 (baseline)"


def test_where_the_baseline_wins_what_is_said_of_the_search_is_of_the_one_it_chose():
    found = confirmed_of((0, 0.14, (0.14, 0.16)), (1, 0.16, (0.10, 0.12)))

    words = " ".join(claim(spec(), [], found, "s"))

    assert "The configuration of trial 0 is best" in words
    assert "(95 % interval 0.00 % to 27.71 %, whose lower end allows" in words  # no accuracy is below
    assert "seen the configuration of trial 1 5.00 points better" in words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (((0.61, 0.62, 0.63), (0.50, 0.52, 0.51), (0.40, 0.40, 0.42)), "95 % confidence none of the other 2 is better."),
        (((0.61, 0.62, 0.63), (0.60, 0.61, 0.63), (0.40, 0.40, 0.42)), "2 is better by more than 1.41 points."),
        (((0.61, 0.62, 0.63), (0.60, 0.61, 0.63)), "95 % confidence the other is not better by more than 0.77 points."),
    ],
)  # fmt: skip
def test_a_winner_is_compared_with_all_that_were_confirmed_beside_it(values, words):
    found = confirmed_of(*((number, 0.6, seeds) for number, seeds in enumerate(values)))

    assert words in " ".join(claim(spec(), [], found, "s"))


@pytest.mark.parametrize(
    ("metric", "bound", "words"),
    [
        ("val_accuracy", 2e-5, "0.01 points"),  # not 0.00, which would say that it is the best
        ("val_accuracy", 0.0077, "0.77 points"),
        ("val_accuracy", 0.00774, "0.78 points"),
        ("val_loss", 0.0123412, "0.01235"),
    ],
)
def test_a_bound_is_never_said_to_be_less_than_it_is(metric, bound, words):
    found = dataclasses.replace(a_confirmation(difference=None), metric=metric, regret=bound)

    assert f"the other is not better by more than {words}." in " ".join(claim(spec(), [], found, "s"))


def test_a_difference_whose_interval_holds_none_may_be_chance():
    unsure = confirmation.Estimate(mean=0.01, std=0.02, low=-0.02, high=0.03, level=0.95)

    words = " ".join(claim(spec(), [], a_confirmation(difference=unsure), "s"))

    assert (
        "1.00 points better than the baseline (95 % interval -2.00 points to +3.00 points); that may be chance" in words
    )


def test_the_papers_table_stands_beside_its_own_metric_alone():
    found = paper_table(spec(), "FER2013")
    assert found is not None
    assert [row[3] for row in found.rows] == ["58.58 %", "60.20 %", "23.82 %", "25.71 %"]
    assert paper_table(spec(metric="score"), None) is None


def test_what_pruning_saved_is_epochs_left_times_own_seconds_an_epoch():
    of = spec(max_epochs=10)
    trials = a_study(
        a_trial(None, state=TrialState.PRUNED, seconds=20.0, rate=0.1),  # 2 epochs, 10 s each, 8 left
        a_trial(0.2, state=TrialState.PRUNED, reason="paused", seconds=2.0, epochs=(0.1,), rate=0.1),  # 9 left
        a_trial(None, state=TrialState.PRUNED, epochs=(), rate=0.1),
        a_trial(None, state=TrialState.PRUNED, reason="diverged: nan", rate=0.1),
        a_trial(0.3, rate=0.1),
    ).trials

    assert saved(of, trials) == dataclasses.replace(saved(of, trials), seconds=98.0, n_estimated=2, n_trials=3)
    assert "about 98 seconds: for each of 2 such trials" in saved_words(of, trials)
    assert "1 more gave no estimate" in saved_words(of, trials)
    assert saved_words(of, trials[-1:]) == ""
    assert "can't be estimated" in saved_words(spec(), trials)
    assert [(s.outcome, s.n_trials) for s in spent(trials)] == [
        ("complete", 1),
        ("pruned", 2),
        ("paused", 1),
        ("diverged", 1),
    ]
    assert outcome(MIXED[-1]) == "at work or at rest"


def test_words_of_values():
    assert value_words("val_accuracy", 0.60204) == "60.20 %"
    assert value_words("loss", 0.60204) == "0.602"
    assert difference_words("loss", 0.5) == "+0.5"
    assert value_words("loss", None) == value_words("val_accuracy", math.nan) == "–"


def test_everything_of_a_user_is_escaped(tmp_path):
    text = the_page(tmp_path, a_study(*MIXED), spec(enqueue=({"rate": 0.1},)))

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert LOADS.findall(text) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_a_study_holds_a_page_is_made_that_loads_nothing(tmp_path_factory, data):
    trials = []
    for _ in range(data.draw(st.integers(0, 8))):
        state = data.draw(st.sampled_from(TrialState))
        values = {
            "rate": st.floats(1e-5, 1), "size": st.sampled_from([16, 32, 64]), "kind": st.sampled_from(["a", NASTY]),
            "deep": st.integers(1, 9),
        }  # fmt: skip
        names = data.draw(st.sets(st.sampled_from(sorted(SPACE))))
        number = st.floats(allow_nan=False)
        trials.append(
            a_trial(
                data.draw(number if state == TrialState.COMPLETE else st.none() | number if state == TrialState.PRUNED else st.none()),
                state=state, reason=data.draw(st.sampled_from([None, NASTY, "paused", "diverged", "import http://a.b/c"])),
                epochs=data.draw(st.lists(st.floats(), max_size=4)), seconds=data.draw(st.floats(0, 1e6)),
                **{name: data.draw(values[name]) for name in names},
            )
        )  # fmt: skip
    direction = data.draw(st.sampled_from(["maximize", "minimize"]))
    of = spec(direction=direction, metric=data.draw(st.sampled_from(["val_accuracy", NASTY])), max_epochs=3)

    text = the_page(tmp_path_factory.mktemp("w"), a_study(*trials, direction=direction), of)

    assert text.endswith("</html>")
    assert LOADS.findall(text) == []
    assert "can't be drawn" not in text


class Reviewing:
    """A trainer that counts how often it is prepared."""

    def __init__(self, sections):
        self.sections, self.n = sections, 0

    def __call__(self, _context):
        self.n += 1
        return self

    def train(self, params, *, seed, workdir):
        raise AssertionError("a report trains nothing")

    def review(self, workdir):
        (workdir / "review").mkdir()
        (workdir / "review" / "most_wrong.png").write_bytes(b"\x89PNG" + bytes(12) + struct.pack(">II", 300, 100))
        (workdir / "secret.png").write_bytes(b"secret")
        return self.sections


def a_trial_folder(tmp_path):
    (tmp_path / "3" / "weights").mkdir(parents=True)
    (tmp_path / "3" / "weights" / "w").touch()
    return tmp_path / "3"


def test_the_trainer_is_asked_once_and_its_pictures_are_in_the_page(tmp_path):
    sections = [
        {"title": "Per class", "text": NASTY, "columns": ["class", "recall"], "rows": [["sad", np.float32(0.5)], ["fear", None]]},
        {"title": "Faces", "pictures": ["most_wrong.png", "../secret.png", "none.png"]},
    ]  # fmt: skip
    trainer, folder = Reviewing(sections), a_trial_folder(tmp_path)

    first, again = (review("s", folder, lambda: trainer(None)) for _ in range(2))

    assert first == again
    assert trainer.n == 1
    assert first.sections[0].table is not None
    assert first.sections[0].table.rows == [["sad", "0.5"], ["fear", "–"]]
    assert [(p.words, p.is_wide) for p in first.sections[1].pictures] == [("Faces: most wrong", True)]
    text = page(gather(spec(), a_study(*MIXED), None, options(tmp_path)), first)
    assert re.search(r'<img src="data:image/png;base64,iVBOR[^"]+" alt="Faces: most wrong"', text)
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (no_trainer, "NotImplementedError"),
        (lambda _c: SimpleNamespace(train=print), "has no `review`"),
        (Reviewing([{"text": "no title"}]), "KeyError"),
        (Reviewing(None), "TypeError"),
    ],
)
def test_a_review_that_is_not_to_be_had_is_left_out_and_said(tmp_path, prepare, words):
    found = review("s", a_trial_folder(tmp_path), lambda: prepare(None))

    assert not found.sections
    assert words in found.words
    assert words in page(gather(spec(), a_study(*MIXED), None, options(tmp_path)), found)


def test_without_weights_no_trainer_is_prepared(tmp_path):
    trainer = Reviewing([])
    assert "holds no weights" in review("s", tmp_path / "9", lambda: trainer(None)).words
    assert trainer.n == 0


def test_a_confirmed_study_shows_its_table_and_a_damaged_file_confirms_nothing(tmp_path):
    confirmation_folder = tmp_path / "s-confirm"
    confirmation_folder.mkdir()
    confirmation.write(a_confirmation(), confirmation_folder)

    text = the_page(tmp_path, a_study(*MIXED))

    assert "0 (baseline)" in text
    assert "Nothing is confirmed yet" not in text
    (confirmation_folder / confirmation.FILE).write_text("{")
    assert "Nothing is confirmed yet" in the_page(tmp_path, a_study(*MIXED))


def test_help_answers_without_anything_heavy():
    code = (
        "import sys\nfrom hpo.report import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'optuna', 'mlflow', 'torch', 'plotly', 'jinja2', 'sqlalchemy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_what_there_is_nothing_to_report_of_is_one_line_and_two(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = str(write_toy(tmp_path))

    def told(*more):
        code = report.main(["--study", toy, *more])
        return code, capsys.readouterr().err

    assert told()[0] == 2
    assert "there is no such store" in told()[1]
    assert not Path("hpo.db").exists()
    optuna.create_study(study_name="other", storage="sqlite:///hpo.db")
    assert told() == (2, f"no study 'toy' in sqlite:///{tmp_path}/hpo.db; there are: other\n")
    optuna.create_study(study_name="toy", storage="sqlite:///hpo.db")
    assert told()[0] == 2
    assert "no trial that has ended" in told()[1]
    assert "--output" in told("--output", "missing/page.html")[1]
    assert not list(tmp_path.glob("*.html"))


def test_the_command_that_makes_it_anew_holds_no_password():
    from types import SimpleNamespace

    from hpo.report_facts import confirm_command, run_commands

    options = SimpleNamespace(
        storage="postgresql://u:secret@h/d", data=None, device=None, workdir="trials", mirror=None, tracking_uri=None
    )

    facts = SimpleNamespace(spec=spec(), study="s", attrs={"hpo.n_trials": 3}, options=options, confirmation=None)

    assert run_commands(facts) == ["python -m hpo.run --study s --trials 3 --storage 'postgresql://u:***@h/d'"]
    assert confirm_command(facts) == "python -m hpo.confirm --study s --storage 'postgresql://u:***@h/d'"


def test_what_was_confirmed_is_made_again_as_it_was(tmp_path):
    from hpo.names import OVER
    from hpo.report_facts import run_commands

    facts = dataclasses.replace(
        gather(spec(), a_study(*MIXED), None, options(tmp_path)),
        confirmation=dataclasses.replace(a_confirmation(), top=4),
    )
    kept = dataclasses.replace(facts, attrs={"hpo.n_trials": 100, OVER: {"reason": "", "budget": [85, None, None]}})
    as_paid_for = dataclasses.replace(kept, confirmation=dataclasses.replace(a_confirmation(), top=3))

    ran, confirmed_by = run_commands(facts)
    both = run_commands(kept)
    (at_once,) = run_commands(as_paid_for)

    assert ran.startswith("python -m hpo.run ")
    assert "python -m hpo.confirm " in confirmed_by
    assert " --top 4 --seeds 3" in confirmed_by
    assert " --trials 100 --confirm" in at_once
    assert both == [at_once, confirmed_by]
