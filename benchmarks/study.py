"""The same fixed list of trials by this service, by a script of Optuna, DataLoader and MLflow, and by Ray Tune.

python benchmarks/study.py --turns 3 --json study.json

Same parameters, epochs and data, on all cores of the CPU, every epoch tracked by MLflow, the best weights kept. The
script and Ray Tune train one trial at a time; this service as many as it finds to be fastest, its default, and beside
that one at a time (`--workers 1`). Of each: the whole wall time, what passes before the first epoch begins (start-up),
what passes beside epochs from then to the last one's end, in all that train together (validation and checkpoints are
part of an epoch), and the peak memory of all its processes. In turns: ratios are medians over the turns. Ray Tune, with
its defaults and with `reuse_actors`, is left out where it is not installed.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> int:
    """Measure, print, and write what was measured."""
    options = _parser().parse_args()
    study = str(ROOT / "benchmarks" / "whole_study" / "ours.py")
    ours = [sys.executable, "-m", "hpo.run", "--study", study, "--device", "cpu"]
    commands = {
        "ours": ours,
        "one_at_a_time": [*ours, "--workers", "1"],
        "script": [sys.executable, "-m", "benchmarks.whole_study.script", "FACES"],
        "ray": [sys.executable, "-m", "benchmarks.whole_study.ray_tune", "FACES"],
    }
    commands["ray_reusing"] = [*commands["ray"], "--reuse-actors"]
    if importlib.util.find_spec("ray") is None or options.without_ray:
        commands = {name: command for name, command in commands.items() if not name.startswith("ray")}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        faces = _faces(Path(folder) / "faces")
        for turn in range(options.turns):
            for name, command in commands.items():
                place = Path(folder) / f"{name}-{turn}"
                place.mkdir()
                rows.append({"name": name, "turn": turn, **_measured(command, place, faces)})
                print(_line(rows[-1]), flush=True)
    ratios = dict(_ratios(rows))
    print("\n".join(f"{name}: {value:.3f}" for name, value in ratios.items()))
    if options.json:
        from benchmarks.report import write

        write(options.json, rows, ratios, ("torch", "optuna", "mlflow", "ray"))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--turns", type=int, default=3, metavar="N", help="how often each study is run")
    found.add_argument("--without-ray", action="store_true", help="ours and the script alone: half the time")
    return found


def _faces(folder: Path) -> Path:
    """The faces of the study, as the others read them."""
    from benchmarks.plain import write_images
    from benchmarks.whole_study.trials import IMAGE_SIZE, N_TRAIN, N_VALIDATION
    from data.synthetic import synthetic_faces

    faces = synthetic_faces(n_train=N_TRAIN, n_validation=N_VALIDATION, n_test=0, image_size=IMAGE_SIZE)
    for split in ("train", "validation"):
        rows = faces.splits[split]
        write_images(faces.images[rows], faces.labels[rows], folder / split)
    return folder


def _measured(command: list[str], place: Path, faces: Path) -> dict[str, Any]:
    """Run one study in a folder of its own; seconds and bytes."""
    marks = place / "marks.jsonl"
    words = [str(faces) if word == "FACES" else word for word in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARKS": str(marks), "HPO_CACHE_DIR": str(place / "cache")}
    began = time.time()
    with (place / "log.txt").open("wb") as log:
        process = subprocess.Popen(words, cwd=place, env=environment, stdout=log, stderr=log)
        peak: list[int] = [0]
        threading.Thread(target=_watch, args=(process.pid, peak), daemon=True).start()
        code = process.wait()
    ended = time.time()
    if code != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{(place / 'log.txt').read_text()[-2000:]}")
    return {**_figures([json.loads(line) for line in marks.read_text().splitlines()], began, ended), "bytes": peak[0]}


def _watch(pid: int, peak: list[int]) -> None:
    """Keep the most memory that a process and all below it held at a time; shared pages count once among them."""
    try:
        while True:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            peak[0] = max(peak[0], sum(_held(each) for each in processes))
            time.sleep(1.0)
    except psutil.NoSuchProcess:
        return


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _figures(marks: list[Mapping[str, Any]], began: float, ended: float) -> dict[str, float]:
    """What a study's time went to, from the epochs that it noted."""
    first, last = min(m["began"] for m in marks), max(m["ended"] for m in marks)
    inside = sum(m["ended"] - m["began"] for m in marks)
    n_trials = len({m["trial"] for m in marks})
    outside = sum(lane[-1] - lane[0] for lane in _lanes(marks)) - inside
    return {
        "wall": ended - began,
        "start_up": first - began,
        "epochs": inside,
        "outside": outside,
        "outside_a_trial": outside / n_trials,
        "shut_down": ended - last,
    }


def _lanes(marks: list[Mapping[str, Any]]) -> list[list[float]]:
    """When trials began and ended, one after another, of as many as were trained together."""
    of_trials: dict[str, list[Mapping[str, Any]]] = {}
    for mark in marks:
        of_trials.setdefault(mark["trial"], []).append(mark)
    spans = sorted((min(m["began"] for m in own), max(m["ended"] for m in own)) for own in of_trials.values())
    lanes: list[list[float]] = []
    for began, ended in spans:
        free = [lane for lane in lanes if lane[-1] <= began]
        if free:
            max(free, key=lambda lane: lane[-1]).extend((began, ended))
        else:
            lanes.append([began, ended])
    return lanes


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['name']:13} wall {row['wall']:6.1f} s: start-up {row['start_up']:.1f}, epochs {row['epochs']:.1f}, "
        f"outside {row['outside']:.1f} ({row['outside_a_trial']:.2f} a trial), to its end {row['shut_down']:.1f}; "
        f"peak memory {row['bytes'] / 1e9:.2f} GB"
    )


def _ratios(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    turns: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows:
        turns.setdefault(row["turn"], {})[row["name"]] = row
    for name in ("one_at_a_time", "script", "ray", "ray_reusing"):
        if all(name in turn for turn in turns.values()):
            ratio = statistics.median(turn[name]["wall"] / turn["ours"]["wall"] for turn in turns.values())
            yield f"wall.{name}_over_ours", ratio
    shares = [turn["ours"]["outside"] / (turn["ours"]["outside"] + turn["ours"]["epochs"]) for turn in turns.values()]
    yield "ours.outside_training_share", statistics.median(shares)


if __name__ == "__main__":
    sys.exit(main())
