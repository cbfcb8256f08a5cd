"""`hpo.ui` as a real process: it answers this machine's own pages only, ends without a trace, and shows a study."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import sync_playwright

from hpo.ui import mlflow_environment
from tests.end_to_end.stores import environment, run, runs
from tests.end_to_end.test_mlflow_ui import CHROMIUM, QUIET, seen
from tests.end_to_end.test_outage import free_port
from tests.hpo.toy import write_toy

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a study of three trials; none of these tests changes it."""
    found = tmp_path_factory.mktemp("ui")
    done = run(found, "--study", str(write_toy(found, trials=3)))
    assert done.returncode == 0, done.stderr
    return found


@contextlib.contextmanager
def shown(folder: Path, *args: str, study: str = "toy") -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command at work, and the addresses that it has printed."""
    command = [sys.executable, "-m", "hpo.ui", "--study", study, "--no-browser", *args]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    family = []
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        else:
            pytest.fail(f"it did not come up: {''.join(lines)}")
        family = psutil.Process(process.pid).children(recursive=True)
        yield process, [line.split(": ", 1)[1].strip() for line in lines if "http://" in line]
    finally:
        for each in [*family, process]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                each.kill()
        process.wait()


def status(address: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, str]]:
    request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310  a loopback address
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=1)
    return not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def test_both_pages_answer_their_own_only_and_ctrl_c_leaves_nothing_behind(folder):
    port = free_port()

    with shown(folder, "--dashboard", "--port", str(port)) as (process, addresses):
        mlflow, dashboard = (address.split("/#")[0] for address in addresses)
        assert mlflow == f"http://127.0.0.1:{port}"
        assert addresses[0].endswith(
            f"/#/experiments/{runs(folder, 'toy')['0'][0].info.experiment_id}/runs?viewStateShareKey=hpo"
        )
        post = json.dumps({"experiment_id": "0"}).encode()
        for address, path, api in (
            (mlflow, "/", "/api/2.0/mlflow/runs/create"),
            (dashboard, "/dashboard", "/api/studies"),
        ):
            own = address.removeprefix("http://")
            code, headers = status(f"{address}{path}")
            assert (code, headers["x-frame-options"]) == (200, "DENY")
            assert status(f"{address}{path}", Host=own.replace("127.0.0.1", "localhost"))[0] == 200
            for host in (
                "evil.com",
                "10.evil.com",
                "192.168.evil.com",
                "localhost.evil.com",
                "127.0.0.1",
                "localhost:1",
            ):
                assert status(f"{address}{path}", Host=host)[0] == 403, host
            assert status(f"{address}{api}", post, Origin="http://evil.com")[0] == 403
        with urllib.request.urlopen(f"{dashboard}/api/studies") as answer:  # noqa: S310
            assert [each["study_name"] for each in json.load(answer)["study_summaries"]] == ["toy"]
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        assert {c.laddr.ip for each in family for c in each.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}

        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest = process.communicate(timeout=30)[0]

        assert process.returncode == 0
        assert rest == ""
        assert time.monotonic() - began < 10
        assert ended(family)


def test_nothing_of_mlflow_is_on_that_looking_at_runs_does_not_need():
    given = {"PATH": "/bin", "MLFLOW_SERVER_ALLOWED_HOSTS": "*", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}

    found = mlflow_environment(given, 5001)

    assert found == {
        "PATH": "/bin",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:5001,localhost:5001",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1:5001",
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": "^mlflow-artifacts:/.*$",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def test_artifacts_and_models_of_this_folder_are_served(folder):
    from mlflow import MlflowClient

    parent = runs(folder, "toy")["study"][0]
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").create_registered_model("toy-champion")

    with shown(folder, "--port", str(free_port())) as (_, addresses):
        address = addresses[0].split("/#")[0]
        client = MlflowClient(tracking_uri=address)
        board = f"{address}/get-artifact?path=leaderboard.csv&run_uuid={parent.info.run_id}"
        text = urllib.request.urlopen(board).read().decode()  # noqa: S310

        assert len(text.splitlines()) == 4
        assert [model.name for model in client.search_registered_models()] == ["toy-champion"]


def test_sigterm_ends_it_with_143_even_while_it_starts(folder):
    command = [sys.executable, "-m", "hpo.ui", "--study", "toy", "--no-browser", "--port", str(free_port())]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not (family := psutil.Process(process.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)

    assert process.returncode == 143
    assert b"Traceback" not in said
    assert ended(family)


def test_its_servers_end_with_it_however_it_ends(folder):
    with shown(folder, "--port", str(free_port()), "--dashboard") as (process, _):
        family = psutil.Process(process.pid).children(recursive=True)

        process.kill()

        assert len(family) >= 4
        deadline = time.monotonic() + 30
        while not ended(family) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ended(family)


def test_a_taken_port_is_a_mistake_when_asked_for_and_passed_over_else(folder):
    with shown(folder) as (_, addresses):
        first = addresses[0].split("/#")[0]
        port = first.rsplit(":", 1)[1]
        again = [sys.executable, "-m", "hpo.ui", "--study", "toy", "--no-browser", "--port", port]
        taken = subprocess.run(again, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        with shown(folder) as (_, others):
            assert others[0].split("/#")[0] != first

    assert taken.returncode == 2
    assert taken.stderr == f"--port {port} is taken; give another one, or none for the next that is free\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--study", "nope"], "no study 'nope'"),
        (["--study", "toy", "--tracking-uri", "http://u:secret@h"], "must hold no user and password"),
        (["--study", "toy", "--dashboard", "--storage", "sqlite:///nope.db"], "there is no such store"),
    ],
)
def test_a_mistake_is_one_line_and_2(folder, args, words):
    command = [sys.executable, "-m", "hpo.ui", "--no-browser", *args]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert words in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_extra_is_named(folder):
    without = (
        "import sys; sys.modules['optuna_dashboard'] = None; from hpo.ui import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", without, "--no-browser", "--study", "toy", "--dashboard"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "--dashboard needs optuna-dashboard: pip install 'fer-hpo[dashboard]'\n"


def test_where_there_is_a_server_already_its_address_is_told_and_none_is_started(folder):
    with shown(folder, "--port", str(free_port())) as (_, addresses):
        server = addresses[0].split("/#")[0]
        command = [sys.executable, "-m", "hpo.ui", "--study", "toy", "--no-browser", "--tracking-uri", server]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"MLflow: {addresses[0]}\n"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_runs_with_values_a_comparison_and_the_leaderboard_are_seen_without_setting_anything_up(folder):
    tracked = runs(folder, "toy")
    ids = [tracked[number][0].info.run_id for number in ("0", "1")]

    with shown(folder, "--port", str(free_port())) as (_, addresses), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1800, "height": 1000})
        page.goto(addresses[0])
        for words in ("#0 ", "optuna.state", "COMPLETE", "best_score", "kind", "study toy"):
            seen(page, words)
        page.screenshot(path=folder / "runs.png")
        server, experiment = addresses[0].split("/#")[0], tracked["0"][0].info.experiment_id
        compared = f"runs={json.dumps(ids)}&experiments={json.dumps([experiment])}".replace('"', "%22").replace(" ", "")
        page.goto(f"{server}/#/compare-runs?{compared}")
        seen(page, "Comparing 2 Runs")
        page.goto(f"{server}/#/experiments/{experiment}/runs/{tracked['study'][0].info.run_id}/artifacts")
        seen(page, "leaderboard.csv")
        browser.close()


def test_an_unknown_study_is_refused_and_no_store_is_made_for_it(tmp_path):
    command = [sys.executable, "-m", "hpo.ui", "--study", "nope", "--no-browser"]

    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "nope" in done.stderr
    assert list(tmp_path.iterdir()) == []
