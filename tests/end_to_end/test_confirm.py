"""A study is confirmed through the real commands: on the same seeds, resumable, its winner a champion."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from playwright.sync_api import sync_playwright

from hpo.champion import champion_file
from hpo.confirmation import read
from hpo.errors import UserError
from model.exported import load
from tests.end_to_end.stores import ROOT, environment, run, runs, trials
from tests.end_to_end.test_mlflow_ui import CHROMIUM, QUIET, seen
from tests.end_to_end.test_outage import free_port
from tests.end_to_end.test_report import looked_at
from tests.end_to_end.test_ui import shown
from tests.hpo.toy import wait_for_epochs, witnessed, write_toy

pytestmark = pytest.mark.slow


def call(folder, module, *args, timeout=1200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, args)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


BASELINE = 'enqueue=({"x": 0.9, "kind": "a"},)'


def test_the_best_and_the_baseline_are_trained_anew_on_the_same_seeds_and_the_test_split_is_looked_at_once(tmp_path):
    inject = "Path('seeds.txt').open('a').write(f'{Path(workdir).parent.name} {seed}\\n')"
    study = write_toy(tmp_path, trials=5, epochs=2, inject=inject, fields=BASELINE)
    looked = "Path('looks.txt').open('a').write(split + '\\n')\n        return"
    study.write_text(study.read_text().replace('return {"score": 0.5}', f'{looked} {{"score": 0.5}}'))
    run(tmp_path, "--study", str(study))

    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 2, "--seeds", 3)
    again = call(tmp_path, "hpo.confirm", "--study", study, "--top", 2, "--seeds", 3)

    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    found = trials(tmp_path, "toy-confirm")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 9
    seeds = [line.split() for line in (tmp_path / "seeds.txt").read_text().splitlines()]
    search, fresh = ({seed for name, seed in seeds if name == which} for which in ("toy", "toy-confirm"))
    assert len(fresh) == 3
    assert not search & fresh
    said = read(tmp_path / "trials" / "toy-confirm", (tmp_path / "trials/toy/.study_id").read_text().strip())
    assert said is not None
    assert len(said.configurations) == 3
    assert said.baseline is not None
    assert said.baseline.params["x"] == 0.9
    assert (tmp_path / "looks.txt").read_text().split() == ["test"] * 3
    assert said.test is not None
    assert said.test.scorings == 1
    assert "better than the baseline; that may be chance: too few seeds differ for an interval" in done.stdout
    tracked = runs(tmp_path, "toy-confirm")
    assert sorted(tracked) == sorted([*map(str, range(9)), "study"])
    parent = runs(tmp_path, "toy")["study"][0]
    assert parent.data.metrics["test_score"] == 0.5
    assert parent.data.metrics["confirmed_score"] == said.best.estimate.mean
    assert "Confirmed on fresh seeds" in parent.data.tags["mlflow.note.content"]
    assert "the trainer exports no network" in done.stdout


def test_a_confirmation_that_was_killed_goes_on_and_trains_nothing_twice(tmp_path):
    study = write_toy(tmp_path, trials=3, epochs=4, pause=0.1)
    run(tmp_path, "--study", str(study))
    before = len(witnessed(tmp_path))
    command = [sys.executable, "-m", "hpo.confirm", "--study", str(study), "--top", "2", "--seeds", "2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_epochs(tmp_path, before + 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert [t.state for t in trials(tmp_path, "toy-confirm")] == [TrialState.COMPLETE] * 4
    assert len(witnessed(tmp_path)) - before <= 4 * 4 + 1
    assert "there is no baseline" in done.stdout


def test_a_later_claim_rests_on_no_fewer_seeds_and_takes_the_place_of_the_one_before(tmp_path):
    study = write_toy(tmp_path, trials=3, epochs=1)
    study.write_text(study.read_text().replace('return {"score": 0.5}', "raise ValueError('no split test')"))
    run(tmp_path, "--study", str(study))

    two = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)
    before = runs(tmp_path, "toy")["study"][1]["confirmed_score"]
    more = call(tmp_path, "hpo.confirm", "--study", study, "--top", 2, "--seeds", 3)
    fewer = call(tmp_path, "hpo.confirm", "--study", study, "--top", 2, "--seeds", 2)

    assert two.returncode == more.returncode == fewer.returncode == 0, two.stderr + more.stderr + fewer.stderr
    assert "study toy has no test split (no split test): it can only validate" in two.stdout
    said = read(tmp_path / "trials" / "toy-confirm", (tmp_path / "trials/toy/.study_id").read_text().strip())
    assert said is not None
    assert (said.top, said.n_seeds) == (2, 3)
    assert "it was confirmed on 3 seeds before, and fewer would know less: it is 3 again" in fewer.stdout
    assert len(trials(tmp_path, "toy-confirm")) == 6
    assert runs(tmp_path, "toy")["study"][1]["confirmed_score"] == [*before, (1, said.best.estimate.mean)]


def test_a_winner_that_can_not_be_scored_now_is_not_one_without_a_test_split(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1)
    whole = study.read_text()
    study.write_text(whole.replace('return {"score": 0.5}', "raise RuntimeError('CUDA out of memory')"))
    run(tmp_path, "--study", str(study))

    failed = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)
    study.write_text(whole.replace('return {"score": 0.5}', 'return {"score": float("nan")}'))
    no_number = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)
    study.write_text(whole)
    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)

    assert failed.returncode == 1
    assert "can't be scored on the test split now (RuntimeError: CUDA out of memory); the same" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert no_number.returncode == 2
    assert no_number.stderr.splitlines()[-1] == "evaluate of study 'toy' must give 'score' as a number, got nan"
    assert done.returncode == 0, done.stderr
    assert "The test split was looked at once" in done.stdout


def test_a_confirmation_that_was_deleted_leaves_its_look_at_the_test_split_counted(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1)
    run(tmp_path, "--study", str(study))
    confirming = "hpo.confirm", "--study", study, "--top", 1, "--seeds"

    first = call(tmp_path, *confirming, 3)
    deleted = call(tmp_path, "hpo.studies", "--delete", "toy-confirm", "--yes")
    second = call(tmp_path, *confirming, 2)

    assert first.returncode == deleted.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "The test split was looked at once" in first.stdout
    assert "was looked at 2 times by now" in second.stdout
    said = read(tmp_path / "trials" / "toy-confirm", (tmp_path / "trials/toy/.study_id").read_text().strip())
    assert said is not None
    assert said.n_seeds == 2  # what was let go of asks for no more
    points = runs(tmp_path, "toy")["study"][1]
    assert [step for step, _ in points["confirmed_score"]] == [0, 1]
    assert points["confirmed_score"][-1][1] == said.best.estimate.mean


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('["a", "b"]', '["a", "c"]', "kind"),
        ("seed=7", "seed=8", "seed 7, now 8"),
        ('metric="score",', 'metric="score", direction="minimize",', "direction maximize, now minimize"),
    ],
)
def test_another_declaration_than_was_searched_is_refused_before_anything_is_announced(before, after, words, tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1)
    run(tmp_path, "--study", str(study))
    study.write_text(study.read_text().replace(before, after))

    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)

    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_an_evaluate_that_gives_nothing_is_a_line(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1)
    study.write_text(study.read_text().replace('return {"score": 0.5}', "return None"))
    run(tmp_path, "--study", str(study))

    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 1)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "evaluate of study 'toy' must return metrics by name, got None"


def test_a_confirmation_trains_on_what_was_searched_on_or_not_at_all(tmp_path):
    describes = "Toy):\n    def describe(self):\n        return {'data_digest': Path('digest').read_text()}\n"
    study = write_toy(tmp_path, trials=2, epochs=1)
    (tmp_path / "digest").write_text("one")
    study.write_text(study.read_text().replace("context: Toy()", "context: Known()") + f"\n\nclass Known({describes}")
    run(tmp_path, "--study", str(study))
    (tmp_path / "digest").write_text("another")

    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)
    export = call(tmp_path, "hpo.export", "--study", study, "--file", "out.safetensors")

    assert done.returncode == export.returncode == 2
    for said in (done.stderr, export.stderr):
        assert "data_digest one, now another" in said
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'hpo.db'}") == ["toy"]


def test_a_study_that_has_the_name_of_a_confirmation_is_told_from_one(tmp_path):
    run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, epochs=1)))
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "toy.py").read_text().replace('"toy"', '"toy-confirm"'))
    run(tmp_path, "--study", str(other))

    done = call(tmp_path, "hpo.confirm", "--study", "toy.py", "--top", 1, "--seeds", 2)

    assert done.returncode == 2
    assert "study 'toy-confirm' is a search of its own" in done.stderr
    deleted = call(tmp_path, "hpo.studies", "--delete", "toy", "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert "toy-confirm" not in deleted.stdout


def test_a_later_study_of_the_same_name_is_not_confirmed_by_the_one_before(tmp_path):
    study = write_toy(tmp_path, trials=2, epochs=1)
    run(tmp_path, "--study", str(study))
    call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)
    optuna.delete_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    run(tmp_path, "--study", str(study))

    done = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)

    assert done.returncode == 2
    assert "'toy-confirm' confirms another study 'toy' that was here before" in done.stderr


def test_more_configurations_later_are_trained_though_some_have_failed(tmp_path):
    inject = "if 'confirm' in str(workdir) and params['x'] == 0.9: raise ValueError('no')"
    study = write_toy(tmp_path, trials=6, epochs=1, inject=inject, fields=BASELINE)
    run(tmp_path, "--study", str(study))
    first = call(tmp_path, "hpo.confirm", "--study", study, "--top", 1, "--seeds", 2)

    more = call(tmp_path, "hpo.confirm", "--study", study, "--top", 2, "--seeds", 2)

    assert first.returncode == more.returncode == 0, first.stderr + more.stderr
    assert "left out: the configuration of trial 0 on seed 0: ValueError: no" in first.stdout
    states = [t.state for t in trials(tmp_path, "toy-confirm")]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)) == (4, 4)  # tried again on both seeds
    assert "is best, with" in more.stdout
    assert ": 4 trainings" in more.stdout


def test_a_search_that_confirms_at_its_end_keeps_a_part_of_its_budget_for_it(tmp_path):
    study = write_toy(tmp_path, trials=4, epochs=1, fields='enqueue=({"x": 0.01, "kind": "a"},)')

    done = run(tmp_path, "--study", str(study), "--confirm", "--trials", "20")
    again = run(tmp_path, "--study", str(study), "--confirm")

    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    assert len(trials(tmp_path, "toy")) == 17
    assert len(trials(tmp_path, "toy-confirm")) == 6
    assert "is best, with" in done.stdout
    assert "is best, with" in again.stdout


@pytest.mark.parametrize("timeout", ["8", "0.1"])  # the shorter one ends before there is a study
def test_a_search_that_is_out_of_time_is_not_confirmed_yet(tmp_path, timeout):
    study = write_toy(tmp_path, trials=500, epochs=3, pause=0.1)

    done = run(tmp_path, "--study", str(study), "--confirm", "--timeout", timeout)

    assert done.returncode == 0, done.stderr
    assert "study toy is confirmed when it is done: the same command goes on" in done.stdout


@pytest.mark.parametrize(
    ("module", "args", "words"),
    [
        ("hpo.confirm", (), "there is no such store"),
        ("hpo.export", ("--onnx", "out.onnx"), "there is no such store"),
        ("hpo.export", (), "nothing to do: give --onnx FILE"),
        ("hpo.export", ("--onnx", "out.txt"), "need a name that ends in .onnx"),
        ("hpo.confirm", ("--seeds", "0"), "must be a whole number in [1, 100], got 0"),
        ("hpo.confirm", ("--storage", "nonsense"), "is no URL"),
    ],
)
def test_what_can_not_be_done_is_one_line(tmp_path, module, args, words):
    done = call(tmp_path, module, "--study", "demo", *args)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "hpo.db").exists()


def test_a_study_without_a_trial_that_has_a_value_is_told_what_to_run(tmp_path):
    run(tmp_path, "--study", str(write_toy(tmp_path, trials=1, inject="raise ValueError('no')")))

    done = call(tmp_path, "hpo.confirm", "--study", "toy.py")
    export = call(tmp_path, "hpo.export", "--study", "toy.py", "--onnx", "out.onnx")
    other = call(tmp_path, "hpo.confirm", "--study", "demo")

    assert done.returncode == export.returncode == other.returncode == 2
    assert done.stderr == "study 'toy' has no trial with a value yet; python -m hpo.run --study toy.py\n"
    assert export.stderr == "study 'toy' has no trial with a value yet; python -m hpo.run --study toy.py\n"
    assert export.stdout == ""
    assert list(tmp_path.glob("out.onnx*")) == []
    assert "no study 'demo' in" in other.stderr


@pytest.mark.parametrize("module", ["hpo.confirm", "hpo.export"])
def test_help_loads_nothing_heavy(module):
    code = f"import sys, {module} as m; m.parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert not {"torch", "optuna", "mlflow", "sqlalchemy", "pandas", "numpy", "scipy"} & set(loaded)


FACES_STUDY = """
from hpo.spec import StudySpec
from studies.faces import draw_faces, drawn_faces, face_trainer

STUDY = StudySpec(
    name="faces", metric="val_accuracy", n_trials=2, draw=draw_faces,
    suggest=lambda trial: {
        "optimizer": "adam", "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True), "batch_size": 16,
        "epochs": 2, "dropout": 0.1,
    },
    prepare=face_trainer(drawn_faces(n_train=70, n_validation=35, n_test=35, image_size=16), pool_stride=2),
)
"""


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    """A folder in which a study of faces is run, exported unconfirmed, and confirmed; what the commands said."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "faces.py").write_text(FACES_STUDY)
    said = [run(folder, "--study", "faces.py")]
    said.append(call(folder, "hpo.export", "--study", "faces.py", "--register", "--file", "early.safetensors"))
    said.append(call(folder, "hpo.confirm", "--study", "faces.py", "--top", 1, "--seeds", 2))
    said.append(call(folder, "hpo.export", "--study", "faces.py", "--onnx", "out.onnx"))
    said.append(call(folder, "hpo.report", "--study", "faces.py"))
    for each in said:
        assert each.returncode == 0, each.stderr
    return folder, [each.stdout for each in said]


def test_before_it_is_confirmed_the_best_trial_is_exported_and_marked_so(confirmed):
    folder, (_, early, confirming, *_) = confirmed

    assert "not confirmed" in early
    assert ", unconfirmed: models:/faces@champion, version 1" in early
    assert re.search(r"of the device at the search's pace; all keep their weights, \d+\.\d [kM]B together", confirming)
    assert (folder / "early.safetensors").exists()
    assert "the champion of faces is faces-confirm #" in confirming
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("faces", "champion")
    previous = client.get_model_version_by_alias("faces", "previous")
    assert (str(champion.version), str(previous.version)) == ("2", "1")
    assert champion.tags["hpo.state"] == "confirmed"
    assert previous.tags["hpo.state"] == "unconfirmed"
    assert "hpo.test_accuracy" in champion.tags


def test_the_champion_and_the_onnx_file_give_the_same_probabilities_and_no_pickle_is_in_it(confirmed):
    folder, _ = confirmed
    code = """
import sys, numpy as np, mlflow, onnxruntime
mlflow.set_tracking_uri("sqlite:///mlflow.db")
faces = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
ours = mlflow.pyfunc.load_model("models:/faces@champion").predict(faces)
(theirs,) = onnxruntime.InferenceSession("out.onnx").run(["probabilities"], {"faces": faces})
assert ours.shape == (3, 7) and ours.dtype == np.float32, ours
assert np.abs(ours - theirs).max() < 1e-4
assert np.allclose(ours.sum(1), 1, atol=1e-5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "type hints" not in done.stderr
    files = [path for path in folder.glob("mlruns/*/*/artifacts/model/**/*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".py", ".safetensors", ".yaml", ".yml", ".txt"}


def test_the_same_network_is_no_new_version_and_a_worse_one_needs_force(confirmed):
    folder, _ = confirmed

    same = call(folder, "hpo.export", "--study", "faces.py", "--register")
    (folder / "trials" / "faces-confirm" / "confirmation.json").rename(folder / "kept.json")
    try:
        worse = call(folder, "hpo.export", "--study", "faces.py", "--register")
    finally:
        (folder / "kept.json").rename(folder / "trials" / "faces-confirm" / "confirmation.json")

    assert "already, version 2" in same.stdout
    assert "it is confirmed, and this one is not; --force replaces it" in worse.stdout


def test_asking_for_a_champion_that_is_not_there_makes_no_store(tmp_path):
    with pytest.raises(UserError, match="there is no such store"):
        champion_file("faces", f"sqlite:///{tmp_path / 'typo.db'}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_study_has_no_champion(confirmed):
    folder, _ = confirmed
    with pytest.raises(UserError, match="study 'other' has no champion in .*hpo.confirm --study other"):
        champion_file("other", f"sqlite:///{folder / 'mlflow.db'}", folder)


def test_a_missing_extra_is_named(confirmed, tmp_path):
    folder, _ = confirmed
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('none here', name='onnxruntime')")
    command = [sys.executable, "-m", "hpo.export", "--study", "faces.py", "--onnx", "other.onnx"]
    where = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    done = subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "other.onnx: needs onnxruntime; pip install 'fer-hpo[onnx]'\n"
    assert not (folder / "other.onnx").exists()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_curves_over_each_other_the_report_and_the_champion_are_seen_in_the_browser(confirmed):
    folder, _ = confirmed
    tracked = runs(folder, "faces")
    parent = tracked["study"][0].info

    with shown(folder, "--port", str(free_port()), study="faces.py") as (_, addresses), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(f"{addresses[0]}&compareRunsMode=CHART")
        page.get_by_placeholder("Search metric charts").fill("^val_accuracy$")
        page.locator(".js-plotly-plot .scatterlayer .trace").nth(1).wait_for(state="attached", timeout=60_000)
        server = addresses[0].split("/#")[0]
        page.goto(f"{server}/#/experiments/{parent.experiment_id}/runs/{parent.run_id}")
        seen(page, "Confirmed on fresh seeds")
        link = page.get_by_role("link", name="The report").get_attribute("href")
        page.goto(f"{server}/{link}")  # a click opens another tab
        seen(page, "faces-report.html")
        page.goto(f"{server}/#/models/faces")
        seen(page, "@ champion")
        browser.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_of_a_confirmed_study_shows_its_table_the_test_split_and_how_to_make_it_again(confirmed, width):
    folder, _ = confirmed

    shown, drawn = looked_at(folder / "faces-report.html", width)

    assert "on 2 fresh seeds" in shown
    assert "On the test split it has accuracy" in shown
    assert "python -m hpo.confirm --study faces.py --top 1 --seeds 2" in shown
    assert "What it confuses" in shown
    assert drawn >= 5


def test_the_champion_is_served(confirmed):
    folder, _ = confirmed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/faces@champion", "--env-manager", "local",
               "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    where = {**environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    where["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "serve.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=where, stdout=log, stderr=log, start_new_session=True)
    try:
        body = json.dumps({"inputs": np.zeros((2, 16, 16), int).tolist()}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        answer = _answered(request, within=180)
        scaled = json.dumps({"inputs": np.full((1, 16, 16), 0.5).tolist()}).encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(  # noqa: S310
                urllib.request.Request(request.full_url, scaled, {"Content-Type": "application/json"}),  # noqa: S310
                timeout=60,
            )
        words = refused.value.read().decode()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    probabilities = np.array(json.loads(answer)["predictions"])
    assert probabilities.shape == (2, 7)
    network = load(Path(champion_file("faces", f"sqlite:///{folder / 'mlflow.db'}", folder / "champion")))
    assert probabilities == pytest.approx(network.probabilities(np.zeros((2, 16, 16), np.uint8)), abs=1e-5)
    assert refused.value.code == 400
    assert "faces must be whole numbers from 0 to 255" in words
    assert probabilities.sum(1) == pytest.approx([1, 1], abs=1e-4)


def _answered(request: urllib.request.Request, within: float) -> bytes:
    deadline = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  of this machine
                return response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()) from error
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
