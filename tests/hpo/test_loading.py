import pytest

from hpo.errors import UserError
from hpo.loading import find_study, known_studies, load_spec

GOOD = """from hpo.spec import StudySpec
STUDY = StudySpec(
    name="mine",
    suggest=lambda t: {},
    prepare=lambda c: None,
    metric="score",
)
"""


def fault(tmp_path, source: str) -> str:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UserError) as caught:
        load_spec(str(path))
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_file_of_ones_own_is_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)

    assert load_spec(str(tmp_path / "mine.py")).name == "mine"


def test_an_unknown_field_is_told_with_its_line_and_all_other_faults(tmp_path):
    source = GOOD.replace('metric="score",', 'metric="score",\n    lerning_rate=1,\n    n_trial=3,\n    seed=-1,')

    assert fault(tmp_path, source).splitlines() == [
        "mine.py:7: unknown field 'lerning_rate'; there are name, suggest, prepare, metric, direction, value, n_trials, "
        "timeout_seconds, n_epochs, max_epochs, sampler, sampler_trials, pruner, scheduler, enqueue, seed, seed_by, retries, "
        "keep_weights, checkpoint_bytes, reuse_epochs, step_cost, draw, summarize",
        "mine.py:8: unknown field 'n_trial' (did you mean 'n_trials'?)",
        "mine.py:9: seed must be a whole number in [0, 9223372036854775807], got -1",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1 +", "mine.py:1: invalid syntax"),
        ("import nothing_like_it", "mine.py:1: ModuleNotFoundError"),
        ("x = 1\nx / 0", "mine.py:2: ZeroDivisionError"),
        ("x = 1", "no STUDY = StudySpec(...)"),
        ("x = " + "-" * 4_000 + "1", "mine.py: it is nested too deep to be read"),
        ("x = " + "-" * 200_000 + "1", "mine.py: it is nested too deep to be read"),
        ("import sys\nsys.exit(0)", "mine.py:2: it ends the process"),
        ("STUDY = 3", "no STUDY = StudySpec(...) in it, but 3"),
        ("a\0b", "mine.py"),
    ],
)
def test_a_file_with_faults_is_told_by_its_line(tmp_path, source, words):
    assert words in fault(tmp_path, source)


@pytest.mark.parametrize(
    "name", ["../../x", "/abs", "a\0b", ".", "CON", "a" * 300, "a\nb", "fer{0}", "a\u200f", "", "x\0.py"]
)
def test_a_name_that_can_not_be_is_refused(name):
    with pytest.raises(UserError):
        find_study(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UserError,
        match=r"no study 'demmo' \(did you mean demo\?\); there are demo, fer, fer_augmented, fer_small, table2",
    ):
        find_study("demmo")
    assert set(known_studies()) == {"demo", "fer", "fer_augmented", "fer_small", "table2"}


def test_a_folder_or_a_missing_file_is_no_study(tmp_path):
    (tmp_path / "dir.py").mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        find_study(str(tmp_path / "dir.py"))
    with pytest.raises(UserError, match="no such study file"):
        find_study(str(tmp_path / "gone.py"))
