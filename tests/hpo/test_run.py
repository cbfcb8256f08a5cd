import subprocess
import sys
from pathlib import Path

import pytest

from hpo.run import main, parser

ROOT = Path(__file__).resolve().parents[2]


def test_the_flags_are_those_that_others_rely_on():
    flags = {option for action in parser()._actions for option in action.option_strings}

    assert flags == {
        "-h", "--help", "--study", "--trials", "--timeout", "--storage", "--tracking-uri", "--data", "--device",
        "--cluster", "--workdir", "--workers", "--workers-per-device", "--confirm", "-v", "--verbose",
    }  # fmt: skip


def test_help_loads_nothing_heavy():
    code = "import sys, hpo.run; hpo.run.parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"torch", "optuna", "mlflow", "sqlalchemy", "pandas", "numpy"} & set(loaded)


def test_a_study_is_declared_without_loading_what_it_trains_with():
    code = "import sys; from hpo.loading import load_spec; load_spec('fer'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"torch", "optuna", "mlflow", "numpy"} & set(loaded)


@pytest.mark.parametrize(
    "flags",
    [
        ["--trials", "0"], ["--trials", "x"], ["--trials", "1000000000000"], ["--timeout", "0"], ["--timeout", "nan"],
        ["--workers", "0"], ["--workers", "9999"], ["--unknown"],
    ],
)  # fmt: skip
def test_a_flag_that_can_not_be_ends_with_2(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--study", "demo", *flags])

    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--study", "nope"], "there are demo, fer, fer_augmented, fer_small, table2"),
        *(
            (["--study", name], "must match")
            for name in (
                "../../x",
                "/abs",
                "a\0b",
                ".",
                "..",
                "x" * 300,
                "a\nb",
                "fer{0}",
                "a\u202eb",
                "",
                "é",
            )
        ),
        (["--study", "demo", "--storage", "postgres://u:secret@h/d"], "need sqlite:///FILE"),
        (["--study", "demo", "--storage", "sqlite:////proc/nothing/hpo.db"], "/proc/nothing"),
    ],
)
def test_a_mistake_is_one_line_and_2_and_leaves_nothing(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert main(flags) == 2

    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(closed):
    code = "import sys; from hpo.options import ended; sys.exit(ended(lambda: sys.stdout.write(chr(97)) - 1))"

    assert (
        subprocess.run(["sh", "-c", f"exec {sys.executable} -c '{code}' {closed}"], cwd=ROOT, check=False).returncode
        == 0
    )


def test_what_is_said_to_a_full_disk_is_74():
    code = "import sys; from hpo.options import ended; sys.exit(ended(lambda: print(1) or 0))"

    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, check=False)
    assert done.returncode == 74
