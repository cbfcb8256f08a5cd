"""One process of a measurement: trials one after the other. Prints seconds a trial and peak memory as JSON."""

import argparse
import itertools
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from benchmarks.scaling.trivial import EPOCHS, NAME, STUDY, Trivial, suggest, value_of
from hpo.leases import Leases, Stopping, become_owner
from hpo.objective import Workplace
from hpo.outbox import Outbox, open_outbox
from hpo.records import Records
from hpo.resume import open_study
from hpo.schedulers.named import make_scheduler
from hpo.schedulers.proposals import make_pruner
from hpo.search import search
from hpo.storage import load_study, open_store


class Untracked(Outbox):
    """Tracking off: nothing is put."""

    def put(self, run: str, kind: Any, payload: Mapping[str, Any], once: str | None = None) -> None:  # noqa: ARG002
        return None


def ours(url: str, n: int, name: str) -> list[float]:
    """Seconds of each of `n` trials of our service, tracking off."""
    folder = Path(tempfile.mkdtemp())
    store = open_store(url)
    leases = Leases(store.engine, folder / ".owners")
    trainer = Trivial()
    with store.lock():
        opened = open_study(STUDY, store, leases, trainer, folder / NAME, folder / "outbox", None)
    outbox = Untracked(open_outbox(folder / "outbox", opened.identity.study_id).engine)
    study = load_study(store, NAME)
    records = Records(STUDY, store, study, leases, outbox, opened.identity, folder / NAME)
    stopping, ended = Stopping(), []

    def told(event: Mapping[str, Any]) -> None:
        if event["event"] == "ended":
            ended.append(time.perf_counter())
            stopping.asked = len(ended) > n

    owner = become_owner(leases.owners, name)
    search(Workplace(records, make_pruner(STUDY), trainer, stopping, told), make_scheduler(STUDY), owner, None)
    owner.leave()
    return [after - before for before, after in itertools.pairwise(ended)]


def plain(url: str, n: int, name: str) -> list[float]:  # noqa: ARG001
    """Seconds of each of `n` trials of `study.optimize`."""
    study = optuna.load_study(study_name=NAME, storage=url)
    ended: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        params = suggest(trial)
        for epoch in range(EPOCHS):
            trial.report(value_of(params, epoch), epoch)
        return value_of(params, EPOCHS - 1)

    study.optimize(objective, n_trials=n + 1, callbacks=[lambda *_: ended.append(time.perf_counter())])
    return [after - before for before, after in itertools.pairwise(ended)]


WAYS: dict[str, Callable[[str, int, str], list[float]]] = {"ours": ours, "optuna": plain}


def main() -> int:
    """Measure once, in so many threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("n", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = sys.stdin.readline().strip()
    found: list[float] = []
    began = time.perf_counter()
    threads = [
        threading.Thread(target=lambda k=k: found.extend(WAYS[options.way](url, options.n, f"one{k}")))
        for k in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    said = {"seconds": statistics.median(found), "wall": time.perf_counter() - began, "memory_gb": peak}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
