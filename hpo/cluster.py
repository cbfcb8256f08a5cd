"""`hpo.run --cluster ray[:HOST:PORT]`: the same command on every GPU of a Ray cluster.

Ray only places it, and again where it died or a node joins: the study lives in the database, and every placed command
works on it as a second one on any machine would. So losing the cluster loses nothing.
"""

import argparse
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.errors import UserError, in_a_line
from hpo.names import STORAGE_VARIABLE
from hpo.options import tracking_uri
from hpo.stages import same_command

LOOK_SECONDS = 1.0
"""How often the cluster is looked at."""
MAX_DEATHS = 3
"""A command that dies so often in a row on a node that lives is given up."""
GRACE_SECONDS = 15.0
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""How long whoever listens at an address has to answer as Ray does; importing Ray takes some of it."""
CARRIED = ("MLFLOW_", "PG", "FER2013_", "HPO_", "AWS_", "GOOGLE_", "AZURE_", "DO_NOT_TRACK")
"""How variables begin that a command needs wherever it works."""
SUMMARY = "best trials of"
"""How the line begins after which a command only sums up: one of them is enough."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one command: a GPU of a node, or a node without any."""

    node: str
    number: int
    gpus: float
    cpus: float


@dataclass(slots=True)
class Placed:
    """A command at its place."""

    slot: Slot
    actor: Any
    next_lines: Any
    """Ray's promise of what it says next."""
    said: list[str] = field(default_factory=list)
    """What it has said since it began to sum up."""
    summing_up: bool = False


def address_of(cluster: str) -> str | None:
    """What `--cluster` names: Ray's address, or None for the cluster that Ray finds, else one of this machine.

    Raises:
        UserError: it names something else than Ray.
    """
    if cluster == "ray":
        return None
    if "@" in cluster:
        raise UserError("--cluster takes no user and password, need ray or ray:HOST:PORT")
    kind, _, address = cluster.partition(":")
    host, _, port = address.rpartition(":")
    if kind != "ray" or not host or "/" in host or not port.isdecimal():
        raise UserError(
            f"--cluster {cluster!r} is not supported, need ray or ray:HOST:PORT; Slurm, see docs/cluster.md"
        )
    return address


def placed_arguments(given: Sequence[str]) -> list[str]:
    """What each place is given of `hpo.run`'s arguments: paths as they are from anywhere, no cluster, no secrets."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--cluster", "--storage", "--tracking-uri", "--study", "--data"):
        parser.add_argument(name)
    named, others = parser.parse_known_args(given)
    if named.study.endswith(".py"):
        named.study = str(Path(named.study).absolute())
    data = [] if named.data is None else ["--data", str(Path(named.data).absolute())]
    return ["--study", named.study, *data, *others]


def run_on_ray(options: Namespace, arguments: Sequence[str]) -> int:
    """Run the command on every GPU of a cluster until the study is done; gives the exit code.

    Args:
        options: of `hpo.run`: `cluster`, `storage`, `study`.
        arguments: of `hpo.run`, without `--cluster`: what every place is given.

    Raises:
        UserError: no Ray here, no cluster at the address, or a store that only one machine reaches.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--cluster ray needs ray: pip install 'fer-hpo[ray]'") from None
    address = address_of(options.cluster)
    if address is not None:
        _refuse_silent(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        # A cluster that is there is joined; else Ray makes one of this machine, without its dashboard.
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        if address is not None:
            raise UserError(f"--cluster ray:{address}: {in_a_line(error)}") from None
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        several = len({node["NodeManagerAddress"] for node in _nodes(ray)}) > 1
        for flag, url, need in (
            ("--storage", options.storage, "postgresql+psycopg://…"),
            ("--tracking-uri", tracking_uri(options.tracking_uri), "http://HOST:PORT"),
        ):
            if several and url.startswith("sqlite:"):
                raise UserError(f"the cluster has several machines, and {url} is one machine's: need {flag} {need}")
        return _Places(ray, list(arguments), _carried(options), str(Path.cwd())).run()
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Refuse an address at which no Ray listens: Ray itself would try for minutes, and be deaf to Ctrl-C."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"--cluster ray:{address}: no cluster answers at HOST:PORT ({error})") from None
    ask = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
        said = "" if asked.returncode == 0 else (asked.stderr.splitlines() or ["no"])[-1]
    except subprocess.TimeoutExpired:
        said = f"nothing in {ANSWER_SECONDS:.0f} s"
    if said:
        raise UserError(f"--cluster ray:{address}: who listens there does not answer as a cluster's head does ({said})")


def _carried(options: Namespace) -> dict[str, str]:
    """The environment that goes along: a node has that of whoever started Ray there. The store's URL may be secret."""
    found = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    return {**found, STORAGE_VARIABLE: options.storage, "MLFLOW_TRACKING_URI": tracking_uri(options.tracking_uri)}


def _nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def slots_of(nodes: Sequence[dict[str, Any]]) -> Iterator[Slot]:
    """The places of a cluster: one for each GPU; where a node has none, one for all its cores."""
    for node in nodes:
        resources = node["Resources"]
        n_gpus = int(resources.get("GPU", 0))
        cpus = resources.get("CPU", 0.0)
        for number in range(n_gpus):
            yield Slot(node["NodeID"], number, 1.0, min(1.0, cpus / n_gpus))
        if n_gpus == 0 and cpus > 0:
            yield Slot(node["NodeID"], 0, 0.0, cpus)


@dataclass(slots=True)
class _Places:
    """All that are placed."""

    ray: Any
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    _placed: dict[Slot, Placed] = field(default_factory=dict)
    _deaths: dict[Slot, int] = field(default_factory=dict)
    _done: set[Slot] = field(default_factory=set)

    def run(self) -> int:
        """Place, listen, place again; until all commands have ended. Ctrl-C ends them in order."""
        try:
            while True:
                slots = set(slots_of(_nodes(self.ray)))
                for slot in sorted(slots - self._placed.keys() - self._done, key=lambda slot: (slot.node, slot.number)):
                    self._place(slot)
                if not self._placed and self._done:
                    return 0
                code = self._listen()
                if code is not None:
                    return self._end(code)
        except KeyboardInterrupt:
            return self._end(130)

    def _place(self, slot: Slot) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id=slot.node, soft=False)
        # Two threads: one waits for lines, the other hears that it is to end.
        actor = self.ray.remote(Command).options(
            num_gpus=slot.gpus, num_cpus=slot.cpus, scheduling_strategy=there, max_concurrency=2
        ).remote(self.arguments, self.environment, self.folder)  # fmt: skip
        self._placed[slot] = Placed(slot, actor, actor.lines.remote())

    def _listen(self) -> int | None:
        """Take in what has been said; gives the exit code where a command says that all must end."""
        waiting = {placed.next_lines: placed for placed in self._placed.values()}
        ready, _ = self.ray.wait(list(waiting), num_returns=len(waiting), timeout=LOOK_SECONDS) if waiting else ([], [])
        if not waiting:
            time.sleep(LOOK_SECONDS)
        for promise in ready:
            placed = waiting[promise]
            try:
                lines, code = self.ray.get(promise)
            except self.ray.exceptions.ActorUnavailableError:  # for a moment, or for good: then it is said to be dead
                placed.next_lines = placed.actor.lines.remote()
                continue
            except self.ray.exceptions.RayError as error:
                if (given_up := self._died(placed, str(error).splitlines()[0])) is not None:
                    return given_up
                continue
            self._say(placed, lines)
            if any(line.startswith("[") for line in lines):  # a trial has ended, or paused at a new best
                self._deaths.pop(placed.slot, None)
            if code is None:
                placed.next_lines = placed.actor.lines.remote()
                continue
            if code < 0 or code in {137, 143}:  # killed: by the system, say, for its memory
                if (given_up := self._died(placed, f"exit code {code}")) is not None:
                    return given_up
                continue
            del self._placed[placed.slot]
            if code != 0:
                _write(placed.said)
                return int(code)
            self._done.add(placed.slot)
            if not self._placed:
                _write(placed.said)
        return None

    def _died(self, placed: Placed, how: str) -> int | None:
        slot = placed.slot
        del self._placed[slot]
        if slot.node not in {node["NodeID"] for node in _nodes(self.ray)}:
            _write([f"a node of the cluster is gone ({slot.node[:8]}): its trial goes on elsewhere"])
            return None
        self._deaths[slot] = self._deaths.get(slot, 0) + 1
        _write([f"a command died on node {slot.node[:8]} ({how}); another takes its place"])
        return 1 if self._deaths[slot] >= MAX_DEATHS else None

    def _say(self, placed: Placed, lines: Sequence[str]) -> None:
        for line in lines:
            placed.summing_up = placed.summing_up or line.startswith(SUMMARY)
            if placed.summing_up:
                placed.said.append(line)
            else:
                _write([f"{placed.slot.node[:8]}.{placed.slot.number}  {line}"])

    def _end(self, code: int) -> int:
        """Ask all commands to end as on SIGTERM, and wait for it."""
        for placed in self._placed.values():
            placed.actor.end.remote()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._placed and time.monotonic() < deadline:
            for slot, placed in list(self._placed.items()):
                ready, _ = self.ray.wait([placed.next_lines], timeout=0.2)
                if not ready:
                    continue
                try:
                    lines, ended = self.ray.get(placed.next_lines)
                except self.ray.exceptions.RayError:
                    lines, ended = [], 1
                self._say(placed, lines)
                placed.next_lines = placed.actor.lines.remote()
                if ended is not None:
                    del self._placed[slot]
        if code == 130:
            _write([f"interrupted; the same command goes on: {same_command()}"])
        return code


class Command:
    """An actor: `hpo.run` as a process of its own, on the node where Ray puts it.

    Args:
        arguments: of the command.
        environment: what it has besides this node's.
        folder: to work in, where the node has it (a shared file system, or the same machine); else `~/fer-hpo`.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        place = Path(folder)
        if not place.is_dir():
            place = Path.home() / "fer-hpo"
            place.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hpo.placed", *arguments], cwd=place, text=True,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: list[str] = []
        self._code: int | None = None
        self._new = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._new:
                self._lines.append(line.rstrip("\n"))
                self._new.notify()
        code = self._process.wait()
        with self._new:
            self._code = code
            self._new.notify()

    def lines(self) -> tuple[list[str], int | None]:
        """What it has said since the last time, when it says something; and its exit code, once it has ended."""
        with self._new:
            self._new.wait_for(lambda: self._lines or self._code is not None)
            said, self._lines = self._lines, []
            return said, None if said else self._code

    def end(self) -> None:
        """Ask it to end: as when this actor dies, its input ends."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def _write(lines: Sequence[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
