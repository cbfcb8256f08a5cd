"""The report through the real command, of a real study; and in a real headless Chromium."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from hpo import confirmation
from tests.end_to_end.stores import environment, run, runs, trials
from tests.end_to_end.test_mlflow_ui import CHROMIUM, QUIET
from tests.hpo.toy import write_toy

pytestmark = pytest.mark.slow

LOADS = re.compile(r"""(?:src=|url\(|import )["']?https?://[^"')]+""")
WEIGHTS = "w = Path(workdir) / 'weights'; w.mkdir(exist_ok=True); (w / 'w').touch()"
REVIEW = """
    def review(self, workdir):
        with WITNESS.with_name("reviewed.txt").open("a") as f:
            f.write("asked\\n")
        return [{"title": "What it takes for what", "columns": ["true", "a"], "rows": [["a", 0.25]]}]
"""


def report(folder, *args):
    command = [sys.executable, "-m", "hpo.report", "--study", str(folder / "toy.py"), *args]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A folder with a finished study in which one trial has failed, and whose trainer has a review."""
    folder = tmp_path_factory.mktemp("studied")
    fail = f"{WEIGHTS}; assert Path(workdir).name != '1', 'it broke'"
    study = write_toy(folder, trials=5, pause=0.01, inject=fail, fields="max_epochs=4,")
    study.write_text(study.read_text().replace("\n\nSTUDY =", f"{REVIEW}\n\nSTUDY ="))
    assert run(folder, "--study", str(study)).returncode == 0
    return folder


def test_it_says_who_won_and_is_a_page_and_an_artifact(studied):
    best = max((t for t in trials(studied, "toy") if t.values), key=lambda t: t.values[0])

    done = report(studied)

    assert done.returncode == 0, done.stderr
    assert f"Of 5 trials with a value, trial {best.number} has the best score: {best.values[0]:.4g}" in done.stdout
    assert "python -m hpo.confirm --study" in done.stdout
    assert "Traceback" not in done.stderr
    page = (studied / "toy-report.html").read_text()
    assert LOADS.findall(page) == []
    assert "AssertionError: it broke" in page
    assert "What it takes for what" in page
    assert "table 2" not in page.split("<script>")[0]
    assert "python -m hpo.run --study" in page
    for name, value in runs(studied, "toy")["study"][0].data.tags.items():
        assert not name.startswith("hpo.version.") or value in page
    uploaded = list(studied.glob("mlruns/*/*/artifacts/toy-report.html"))
    assert [file.read_text() for file in uploaded] == [page]


def test_again_it_asks_no_trainer_and_replaces_the_page(studied):
    report(studied)
    asked = (studied / "reviewed.txt").read_text()

    again = report(studied)

    assert again.returncode == 0, again.stderr
    assert (studied / "reviewed.txt").read_text() == asked == "asked\n"
    assert len(list(studied.glob("*.html"))) == 1


def test_without_mlflow_it_is_written_and_a_line_says_so(studied):
    done = report(studied, "--output", "elsewhere.html", "--tracking-uri", "http://127.0.0.1:9")

    assert done.returncode == 0, done.stderr
    assert (studied / "elsewhere.html").stat().st_size > 1_000_000
    assert done.stdout.count("MLflow at http://127.0.0.1:9 is not reached") == 1
    (studied / "elsewhere.html").unlink()


def test_what_is_confirmed_comes_first(studied):
    folder = studied / "trials" / "toy-confirm"
    folder.mkdir()
    retrained = [
        confirmation.Retrained(
            trial=n,
            params={"x": 0.3},
            is_baseline=n == 0,
            searched=0.8,
            trials=(0, 1),
            values=(0.7 + n / 10, 0.71 + n / 9),
        )
        for n in (0, 2)
    ]
    said = confirmation.confirmed(retrained, study="toy", metric="score", direction="maximize")
    study_id = (studied / "trials" / "toy" / ".study_id").read_text().strip()
    confirmation.write(dataclasses.replace(said, study_id=study_id), folder)

    done = report(studied)

    assert "The configuration of trial 2 is best, with x 0.3: score 0.9161 on 2 fresh seeds" in done.stdout
    assert "holds no weights" in done.stdout
    (folder / confirmation.FILE).unlink()
    folder.rmdir()


def test_another_folder_s_study_can_be_reported_on(studied, tmp_path):
    command = [sys.executable, "-m", "hpo.report", "--study", str(studied / "toy.py")]
    command += ["--storage", f"sqlite:///{studied}/hpo.db", "--workdir", str(studied / "trials")]

    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "no artifact" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["toy-report.html"]


def looked_at(file: Path, width: int) -> tuple[str, int]:
    """What a page shows in a browser so wide, and how many figures; it loads nothing, raises nothing, overflows nothing."""
    errors, loaded = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        shown, drawn = page.locator("body").inner_text(), page.locator(".figure .main-svg").count()
        wide = page.evaluate("document.documentElement.scrollWidth")
        printed = page.pdf(format="A4")
        browser.close()
    assert errors == []
    assert [url for url in loaded if not url.startswith(("file:", "data:"))] == []
    assert wide == width
    assert printed.startswith(b"%PDF")
    return shown, drawn


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_it_draws_everything_loads_nothing_and_nothing_overflows(studied, width):
    if not (studied / "toy-report.html").exists():
        report(studied)

    _, drawn = looked_at(studied / "toy-report.html", width)

    assert drawn >= 7
