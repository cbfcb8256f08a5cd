"""One call of `hpo.run`: opens the stores, launches workers, and lets a conductor follow them."""

import importlib
import math
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from hpo.background import yield_to_training
from hpo.conductor import Conductor
from hpo.devices import environment_of, visible_gpus
from hpo.display import Display
from hpo.launch import Launcher
from hpo.mirror import open_mirror
from hpo.names import OUTBOX
from hpo.options import tracking_uri
from hpo.plan import Plan
from hpo.prepared import cores
from hpo.spec import StudySpec
from hpo.stages import command_began, reached
from hpo.storage import open_store, quiet_optuna
from hpo.tracking_store import check_uri, open_uri
from hpo.urls import is_sqlite
from hpo.worker import Assignment


def run_study(spec: StudySpec, options: Namespace, plan: Plan | None = None) -> int:
    """Run a study as the command line asks; gives the exit code.

    Args:
        spec: of the study; the sibling's where a plan is confirmed.
        options: `study`, `trials`, `timeout`, `confirm` and where things are, as `hpo.run` has them.
        plan: of a confirmation.

    Raises:
        HpoError: a store that can't be used.
    """
    uri = tracking_uri(options.tracking_uri)
    quiet_optuna()
    began = command_began()
    is_safe = check_uri(uri)
    if options.mirror is not None:
        open_mirror(options.mirror, "")  # a mistake in it is told before anything begins
    reached("the study is loaded", began)
    store = open_store(options.storage)
    reached("the store is open", began)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: nothing is cut there
    display = Display(console, spec)
    if plan is None and not is_sqlite(store.url) and uri.startswith("sqlite:"):
        display.say(
            f"MLflow's runs of this machine's trials go into {uri}; machines that share the study need one server for "
            "all of them: --tracking-uri http://HOST:PORT"
        )
    conductor = Conductor(
        spec,
        store,
        uri,
        partial(_opened_tracking, uri, began),
        Path(options.workdir),
        display,
        is_safe=is_safe,
        may_grow=plan is None and not options.confirm,
    )
    # A device that is named is the only one; which one it is only its framework knows.
    gpus = visible_gpus() if options.device in {None, "cuda"} else []
    n_workers = options.workers or max(1, len(gpus))
    assignment = Assignment(
        study=options.study,
        plan=None if plan is None else plan.to_json(),
        first=True,
        owner="",
        storage=store.url,
        data=options.data,
        device=options.device,
        threads=max(1, cores() // n_workers),
        workers=math.ceil(n_workers / max(1, len(gpus))),
        # Workers that were counted out run one trial each, unless that is counted out, too.
        lanes=options.workers_per_device or (None if options.workers is None else 1),
        n_trials=options.trials if plan is None else plan.n_trials,
        keeps=plan is None and options.confirm,
        workdir=options.workdir,
        mirror=options.mirror,
        outbox=OUTBOX,
        verbose=options.verbose,
        began=began,
    )
    environment = partial(environment_of, gpus)
    launcher = Launcher(assignment, n_workers, environment, conductor.on_event, conductor.on_death, conductor.go)
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    with _signals(launcher):
        try:
            code = launcher.run(deadline, conductor.tick)
        finally:
            conductor.display.close()
        return conductor.finish(launcher, code)


def _opened_tracking(uri: str, began: float) -> Future[None]:
    """Open MLflow's store in a thread of its own."""
    done: Future[None] = Future()
    # A daemon: no user's mistake waits for MLflow, and a signal but for some seconds.
    threading.Thread(target=_open_tracking, args=(uri, began, done), name="tracking", daemon=True).start()
    return done


def _open_tracking(uri: str, began: float, done: Future[None]) -> None:
    """Import MLflow and make its schema, some four seconds on first use: meanwhile workers get ready, and train."""
    yield_to_training()
    try:
        open_uri(uri)
        importlib.import_module("hpo.tracking")  # a server's store needs none of it to be opened
    except BaseException as error:  # whoever waits for it is told
        done.set_exception(error)
        return
    reached("MLflow's store is open", began)
    done.set_result(None)


@contextmanager
def _signals(launcher: Launcher) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP ends the workers cleanly, a second one at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        launcher.ask_to_stop(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # a terminal that closes; not under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
