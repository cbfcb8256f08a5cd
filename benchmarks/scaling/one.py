"""One process of a measurement: trials one after the other, in each of its threads, which share a store.

Prints seconds a trial, seconds until the study is loaded, and peak memory as JSON.
"""

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from hpo.storage import load_study, open_store, read_trials


class Untracked(Outbox):
    """Tracking off: nothing is put."""

    def put(self, run: str, kind: Any, payload: Mapping[str, Any], once: str | None = None) -> None:  # noqa: ARG002
        return None


def ours(url: str) -> Callable[[int], list[float]]:
    """Our service, tracking off, ready to run so many trials; that gives when each ended, in seconds since 1970.

    May be run in several threads at once, as the lanes of a worker.
    """
    folder = Path(tempfile.mkdtemp())
    store = open_store(url)
    leases = Leases(store.engine, folder / ".owners")
    trainer = Trivial()
    read_trials(store, NAME)
    with store.lock():
        opened = open_study(STUDY, store, leases, trainer, folder / NAME, folder / "outbox", None)
    outbox = Untracked(open_outbox(folder / "outbox", opened.identity.study_id).engine)

    def run(n: int) -> list[float]:
        records = Records(STUDY, store, load_study(store, NAME), leases, outbox, opened.identity, folder / NAME)
        stopping, ended = Stopping(), [time.time()]

        def told(event: Mapping[str, Any]) -> None:
            if event["event"] == "ended":
                ended.append(time.time())
                stopping.asked = len(ended) > n

        owner = become_owner(leases.owners)
        search(Workplace(records, make_pruner(STUDY), trainer, stopping, told), make_scheduler(STUDY), owner, None)
        leases.leave(owner)
        return ended

    return run


def plain(url: str) -> Callable[[int], list[float]]:
    """The same by `study.optimize`."""
    storage = optuna.storages.get_storage(url)
    optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)

    def objective(trial: optuna.Trial) -> float:
        params = suggest(trial)
        for epoch in range(EPOCHS):
            trial.report(value_of(params, epoch), epoch)
        return value_of(params, EPOCHS - 1)

    def run(n: int) -> list[float]:
        ended, study = [time.time()], optuna.load_study(study_name=NAME, storage=storage)
        study.optimize(objective, n_trials=n, callbacks=[lambda *_: ended.append(time.time())])
        return ended

    return run


WAYS: dict[str, Callable[[str], Callable[[int], list[float]]]] = {"ours": ours, "optuna": plain}


def main() -> int:
    """Measure once, in so many threads: get ready, say so, wait for `go`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("n", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = sys.stdin.readline().strip()
    began = time.perf_counter()
    run = WAYS[options.way](url)
    loading = time.perf_counter() - began
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with ThreadPoolExecutor(options.threads) as threads:
        found = list(threads.map(run, [options.n] * options.threads))
    times = [each for ended in found for each in ended]
    said = {
        # The first one also warms up.
        "seconds": [after - before for ended in found for before, after in itertools.pairwise(ended[1:])],
        "began": min(times), "ended": max(times), "loading": loading,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }  # fmt: skip
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
