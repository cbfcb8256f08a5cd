"""`python -m hpo.ui --study fer`: look at a study while it runs, in MLflow's pages and, if wanted, Optuna's dashboard.

Both are served on this machine to this machine only, with everything off that is not needed to look at runs: a page
from elsewhere that the browser shows meanwhile must reach neither. Plain `mlflow ui` in the same folder goes on, too.

Exit codes: 0 ended by Ctrl-C, 1 a server ended by itself, 2 something for you to mend, 143 ended by SIGTERM.
"""

import argparse
import importlib.util
import os
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import psutil

from hpo.errors import HpoError, UserError
from hpo.names import STORAGE_VARIABLE
from hpo.options import add_storage, add_tracking, ended, free_port, is_taken, study_name, tracking_uri

HOST = "127.0.0.1"
MLFLOW_PORT, DASHBOARD_PORT = 5000, 8080
START_SECONDS = 120.0
"""How long a server may take to answer: a busy machine takes its time."""
STOP_SECONDS = 4.0
"""How long it may take to end before it is made to."""
KEPT_VARIABLES = ("MLFLOW_S3_",)
"""What of MLflow's own environment its server needs; every other variable could undo a setting of ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    return ended(lambda: look(options))


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.ui",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        description="Look at a study while it runs, in the browser; Ctrl-C ends it, and leaves the study alone.",
        epilog="exit codes: 0 ended by Ctrl-C; 1 else; 2 something for you to mend; 143 ended by SIGTERM",
    )
    add = found.add_argument
    add("--study", required=True, help="a study's name, or the .py file that declares it")
    add_storage(found)
    add_tracking(found)
    add("--port", type=_port, metavar="P", help=f"of MLflow's pages [{MLFLOW_PORT}, or the next free one]")
    add("--dashboard", action="store_true", help="Optuna's dashboard, too (pip install 'fer-hpo[dashboard]')")
    add("--no-browser", action="store_true", help="print the addresses only")
    return found


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number in [1, 65535], got {text!r:.80}")
    return value


def look(options: Namespace) -> int:
    """Serve until a signal ends it; gives the exit code.

    Raises:
        UserError: no such study, a port that is taken, a store that can't be used.
        HpoError: a server does not come up, or ends by itself.
    """
    if options.dashboard and importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError("--dashboard needs optuna-dashboard: pip install 'fer-hpo[dashboard]'")
    if options.port is not None and is_taken(options.port):
        raise UserError(f"--port {options.port} is taken; give another one, or none for the next that is free")
    name, servers = study_name(options.study), list[Server]()
    with _signals() as stop:
        try:
            addresses = []
            for words, address in _served(options, name, servers, stop):
                sys.stdout.write(f"{words}: {address}\n")
                sys.stdout.flush()
                addresses.append(address)
            if not options.no_browser and not stop.asked.is_set() and _has_display():
                for address in addresses:
                    webbrowser.open(address)
            if servers and not stop.asked.is_set():
                sys.stdout.write("Ctrl-C ends this; the study goes on\n")
                sys.stdout.flush()
            while servers and not stop.asked.wait(0.5):
                for server in servers:
                    server.refuse_ended()
        finally:
            end(servers)
    return 128 + signal.SIGTERM if stop.number == signal.SIGTERM else 0


def _served(options: Namespace, name: str, servers: "list[Server]", stop: "Stop") -> Iterator[tuple[str, str]]:
    """Start what is wanted, adding it to `servers`; gives each by what it is and its address, once it answers."""
    from hpo.experiments import experiment_of
    from hpo.tracking_store import open_uri

    uri = open_uri(tracking_uri(options.tracking_uri), make=False)
    experiment = experiment_of(uri, name)
    if experiment is None or options.dashboard:
        _refuse_unknown(options, name, known=experiment is not None)
    if uri.startswith("http"):
        mlflow_address = uri.rstrip("/")
    else:
        open_uri(uri)
        sys.stderr.write("MLflow is being started\n")  # that takes it ten seconds and more
        server = start_mlflow(uri, options.port or free_port(MLFLOW_PORT))
        servers.append(server)
        mlflow_address = server.address
    if options.dashboard:
        servers.append(start_dashboard(options.storage, free_port(DASHBOARD_PORT, besides=options.port)))
    for server in servers:
        server.wait(stop.asked)
    if stop.asked.is_set():
        return
    if experiment is None:
        sys.stdout.write(f"study {name} has no run in MLflow yet; they come with the next hpo.run\n")
    yield "MLflow", mlflow_address + ("" if experiment is None else page_of(uri, experiment, name))
    if options.dashboard:
        yield "Optuna's dashboard", servers[-1].address


def page_of(uri: str, experiment: str, study: str) -> str:
    """Where MLflow shows a study's runs: its trials, best first, with state, metric and params.

    MLflow's table begins without any of these. A view that is shared by its address is kept as a tag of the experiment.
    """
    import json

    from hpo.tracking import MlflowClient, MlflowException

    client, page = MlflowClient(tracking_uri=uri), f"/#/experiments/{experiment}/runs"
    try:
        runs = client.search_runs([experiment], f"tags.`optuna.study` = '{study}'", max_results=100)
        tags = next((run.data.tags for run in runs if "hpo.metric" in run.data.tags), None)
        if tags is None:  # the study's own run is older than a hundred trials
            found = client.search_runs([experiment], "tags.`hpo.kind` = 'study'", max_results=1)
            tags = found[0].data.tags if found else {}
        metric, params = tags.get("hpo.metric"), list(dict.fromkeys(name for run in runs for name in run.data.params))
        order = f"metrics.`best_{metric}`" if metric else "attributes.`Created`"
        columns = ["tags.`optuna.state`", *([order] if metric else []), *(f"params.`{name}`" for name in params)]
        view = {"selectedColumns": columns, "orderByKey": order, "orderByAsc": tags.get("hpo.direction") == "minimize"}
        client.set_experiment_tag(experiment, "mlflow.sharedViewState.hpo", json.dumps(view))
    except MlflowException:  # a server on which others may only read
        return page
    return f"{page}?viewStateShareKey=hpo"


def _refuse_unknown(options: Namespace, name: str, *, known: bool) -> None:
    """Refuse a name that neither MLflow, nor the store, nor studies/ knows; the dashboard needs the store."""
    from hpo.loading import find_study
    from hpo.urls import is_sqlite, sqlite_path

    is_there = not is_sqlite(options.storage) or sqlite_path(options.storage).is_file()
    if options.dashboard or (not known and is_there):
        from hpo.storage import existing_store, study_names

        known = name in study_names(existing_store(options.storage)) or known
    if not known:
        find_study(options.study)


@dataclass(frozen=True, slots=True)
class Server:
    """A server of ours, in a process group of its own."""

    words: str
    address: str
    health: str
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    def wait(self, stopped: threading.Event) -> None:
        """Wait until it answers, or `stopped`.

        Raises:
            HpoError: it ended, or does not answer.
        """
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach this machine's own
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.refuse_ended()
            try:
                with direct.open(f"{self.address}{self.health}", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if stopped.wait(0.1):
                    return
        raise HpoError(f"{self.words} does not answer at {self.address} after {START_SECONDS:.0f} s: {self._last()}")

    def refuse_ended(self) -> None:
        """See whether it is still there.

        Raises:
            HpoError: it is not; the message has the last line that it said.
        """
        if self.process.poll() is not None:
            raise HpoError(f"{self.words} ended by itself: {self._last()}")

    def _last(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")


def start_mlflow(uri: str, port: int) -> Server:
    """Start MLflow's server on a SQLite store; it serves the runs, their artifacts and the registered models."""
    from hpo.urls import sqlite_path

    store = sqlite_path(uri)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(store.parent / "mlartifacts")),
        "--uvicorn-opts=--no-access-log",
    ]
    return _started("MLflow", command, port, "/health", mlflow_environment(os.environ, port))


def mlflow_environment(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """The environment of MLflow's server: nothing is on that looking at runs does not need.

    Hosts are exact, with their port: without that, a page whose name is made to point to this machine could read and
    change everything (DNS rebinding). The last pattern concerns model versions that are made through this server.
    """
    ours = ("MLFLOW_", "_MLFLOW_")
    kept = {k: v for k, v in environment.items() if not k.startswith(ours) or k.startswith(KEPT_VARIABLES)}
    return {
        **kept,
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": "^mlflow-artifacts:/.*$",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def start_dashboard(storage: str, port: int) -> Server:
    """Start Optuna's dashboard on the Optuna store."""
    code = f"from hpo.ui import serve_dashboard; serve_dashboard({port})"
    environment = {**os.environ, STORAGE_VARIABLE: storage}
    return _started("Optuna's dashboard", [sys.executable, "-c", code], port, "/", environment)


def _started(words: str, command: Sequence[str], port: int, health: str, environment: Mapping[str, str]) -> Server:
    output = tempfile.TemporaryFile()  # noqa: SIM115  it is the server's for as long as that lives
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo.attached", str(STOP_SECONDS), *command],
        env=environment,
        stdin=subprocess.PIPE,  # it ends with us, however we end
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is ours to pass on
    )
    return Server(words, f"http://{HOST}:{port}", health, process, output)


def end(servers: Sequence[Server]) -> None:
    """End servers with all their children; who does not end in time is killed."""
    alive = [process for server in servers for process in _family(server.process.pid)]
    _signal_groups(servers, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(map(_is_alive, alive)) and time.monotonic() < deadline:
        for server in servers:
            server.process.poll()  # one that has ended is alive till then
        time.sleep(0.05)
    _signal_groups(servers, signal.SIGKILL)
    for server in servers:
        server.process.wait()
        if server.process.stdin is not None:
            server.process.stdin.close()
        server.output.close()


def _signal_groups(servers: Sequence[Server], number: int) -> None:
    for server in servers:
        try:
            os.killpg(server.process.pid, number)
        except (ProcessLookupError, PermissionError):  # none is left; macOS says so of zombies
            continue


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(slots=True)
class Stop:
    """Which signal asked to end, if one did."""

    asked: threading.Event
    number: int = 0


@contextmanager
def _signals() -> Iterator[Stop]:
    """Take the signals that ask to end."""
    stop = Stop(threading.Event())

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.number = stop.number or number
        stop.asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_display() -> bool:
    """Whether there is a screen for a browser: one in the terminal would take that away."""
    if sys.platform in {"darwin", "win32"}:
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


Application = Callable[[dict[str, Any], Any], Any]


def serve_dashboard(port: int) -> None:
    """Serve Optuna's dashboard on this machine, until a signal ends it."""
    from optuna_dashboard import wsgi

    from hpo.storage import open_store

    application = guarded(wsgi(open_store(os.environ[STORAGE_VARIABLE]).storage), port)
    make_server(HOST, port, application, server_class=_Threaded, handler_class=_Quiet).serve_forever()


def guarded(application: Application, port: int) -> Application:
    """Let only pages of this server reach an application that does not look at that itself."""
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    def guard(environ: dict[str, Any], start_response: Any) -> Any:
        origin = environ.get("HTTP_ORIGIN")
        foreign = origin is not None and origin.removeprefix("http://") not in hosts
        if environ.get("HTTP_HOST") not in hosts or (foreign and environ["REQUEST_METHOD"] not in {"GET", "HEAD"}):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"only for pages of this machine\n"]

        def framed_by_none(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("X-Frame-Options", "DENY")], *rest)

        return application(environ, framed_by_none)

    return guard


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


if __name__ == "__main__":
    sys.exit(main())
