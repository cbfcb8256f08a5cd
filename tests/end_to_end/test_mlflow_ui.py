"""In a real headless Chromium: the trials with their parameters, and a run's learning curve, in plain `mlflow ui`."""

import shutil

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.end_to_end.stores import run, runs
from tests.end_to_end.test_outage import free_port, mlflow_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


def seen(page: Page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=60_000)


def test_trials_parameters_and_a_learning_curve_are_seen(tmp_path):
    assert run(tmp_path, "--study", "demo", "--trials", "2", "--device", "cpu").returncode == 0
    tracked = runs(tmp_path, "demo")
    first, _ = tracked["0"]

    with mlflow_server(tmp_path, free_port(), "ui") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        experiment = f"{address}/#/experiments/{first.info.experiment_id}"

        page.goto(f"{experiment}/runs?compareRunsMode=TABLE")
        seen(page, "study demo")
        page.locator("button[data-component-id*='runnamecellrenderer']").first.click()  # shows the study's trials
        seen(page, "#0 sgd lr=0.05 bs=32")
        seen(page, "#1 ")
        page.goto(f"{experiment}/runs/{first.info.run_id}")
        seen(page, "learning_rate_scale")
        seen(page, "val_accuracy")
        page.goto(f"{experiment}/runs/{first.info.run_id}/model-metrics")
        page.get_by_placeholder("Search metric charts").fill("val_accuracy")  # charts out of sight are not drawn
        seen(page, "val_accuracy")
        page.locator(".js-plotly-plot .scatterlayer").first.wait_for(state="attached", timeout=60_000)
        browser.close()
