"""How long the page of a study of 1,000 trials takes to be made, and to open in a browser, beside Optuna's own figures.

python benchmarks/page.py --turns 5 --json page.json

The page is `hpo.report`'s; its peer is one with five figures of `optuna.visualization` one below the other, as plotly
writes them into one self-contained file. In a headless Chromium of 1280×900 pixels, each in a fresh context, in turns:
seconds until its text is there (first contentful paint), until the first figure is, and until the page is loaded (the
peer's has all figures drawn by then, ours draws the others as they are scrolled to). Ratios are medians over the turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KINDS = ("painted", "drawn", "loaded")
STUDY = ROOT / "benchmarks" / "scaling" / "trivial.py"


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    if CHROMIUM is None:
        raise SystemExit("no Chromium on this machine (Debian: apt-get install chromium)")
    if options.quick:
        options.turns = 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = {"ours": _ours(folder, options.trials), "optuna": _optunas(folder)}
        rows = _opened({name: folder / f"{name}.html" for name in made}, options.turns)
        sizes = {name: (folder / f"{name}.html").stat().st_size for name in made}
    of = {name: {kind: [r[kind] for r in rows if r["name"] == name] for kind in KINDS} for name in made}
    for name, seconds in made.items():
        painted, drawn, loaded = (statistics.median(of[name][kind]) for kind in KINDS)
        print(
            f"{name:7s} made in {seconds:.1f} s, {sizes[name] / 1e6:.1f} MB: its text after {painted:.2f} s, its first "
            f"figure after {drawn:.2f} s (at most {max(of[name]['drawn']):.2f}), loaded after {loaded:.2f} s"
        )
    pairs = zip(of["optuna"]["drawn"], of["ours"]["drawn"], strict=True)
    ratios = {"drawn.optuna_over_ours": statistics.median(theirs / ours for theirs, ours in pairs)}
    print("\n".join(f"{name}: {value:.3f}" for name, value in ratios.items()))
    if options.json:
        from benchmarks.report import write

        samples = {"opened": rows, "made": made, "bytes": sizes}
        write(options.json, samples, ratios, ("optuna", "plotly", "playwright"), browser=CHROMIUM)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--quick", action="store_true", help="one turn")
    found.add_argument("--trials", type=int, default=1_000, metavar="N", help="of the study")
    found.add_argument("--turns", type=int, default=5, metavar="N", help="how often each page is opened")
    return found


def _ours(folder: Path, n_trials: int) -> float:
    """A study with so many trials, and the report's page of it; gives the seconds that the command took."""
    import optuna

    from benchmarks.scaling.filled import fill
    from hpo.storage import open_store

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fill(open_store(f"sqlite:///{folder / 'hpo.db'}"), n_trials)
    command = [sys.executable, "-m", "hpo.report", "--study", str(STUDY), "--output", "ours.html"]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=_environment(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _optunas(folder: Path) -> float:
    """Optuna's figures of the same study in one page; gives the seconds that a command of five lines took."""
    code = (
        "import optuna, optuna.visualization as v\n"
        "study = optuna.load_study(study_name='scale', storage='sqlite:///hpo.db')\n"
        "plots = (v.plot_optimization_history, v.plot_intermediate_values, v.plot_param_importances, v.plot_slice,"
        " v.plot_parallel_coordinate)\n"
        "parts = [f(study).to_html(full_html=False, include_plotlyjs=i == 0) for i, f in enumerate(plots)]\n"
        "open('optuna.html', 'w').write('<html><body>' + ''.join(parts) + '</body></html>')\n"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=_environment(), check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _opened(pages: dict[str, Path], turns: int) -> list[dict[str, Any]]:
    """Seconds until each page is loaded, and until its first figure is drawn, in turns; the first turn warms up."""
    from playwright.sync_api import sync_playwright

    rows: list[dict[str, Any]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for turn in range(turns + 1):
            rows += [{"name": name, "turn": turn, **_seconds(browser, page)} for name, page in pages.items()]
        browser.close()
    return [row for row in rows if row["turn"] > 0]


def _seconds(browser: "Browser", file: Path) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(file.as_uri(), wait_until="commit")
    page.wait_for_selector(".main-svg", timeout=60_000)
    drawn = time.perf_counter() - began
    page.wait_for_load_state("load")
    loaded = time.perf_counter() - began
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    context.close()
    return {"painted": painted, "drawn": drawn, "loaded": loaded}


if __name__ == "__main__":
    sys.exit(main())
