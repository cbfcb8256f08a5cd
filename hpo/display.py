"""What a person sees while a study runs: a live display on a terminal, one plain line a trial on a pipe."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial
from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hpo.spec import StudySpec
from hpo.tracked import params_of, ranking, run_name


@dataclass(slots=True)
class Display:
    """Follows a study by its workers' events.

    Args:
        console: where to draw; a terminal gets the live display.
        spec: of the study.
    """

    console: Console
    spec: StudySpec
    n_trials: int | None = None
    n_done: int = 0
    best: tuple[float, str] | None = None
    running: dict[int, dict[str, Any]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _done_here: int = 0
    _names: dict[int, str] = field(default_factory=dict)
    _live: Live | None = None
    _bar: Progress = field(init=False)
    _task: Any = None

    def __post_init__(self) -> None:
        self._bar = Progress(
            TextColumn(f"[bold]{self.spec.name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("", total=None, left="")

    def open(self, trials: Sequence[FrozenTrial], n_trials: int | None) -> None:
        """Begin with what the study has already."""
        self.n_trials = n_trials
        self.n_done = sum(t.state.is_finished() and t.state.name != "FAIL" for t in trials)
        for trial in reversed(ranking(self.spec, trials)):
            self._note_best(trial.value, run_name(trial.number, params_of(trial)))
        if self.n_done and (n_trials is None or self.n_done < n_trials):
            self.say(f"study {self.spec.name} goes on: {self.n_done} of {n_trials or 'unbounded'} trials are done")
        if self.console.is_terminal and self._live is None:
            self._live = Live(self._drawn(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def handle(self, worker: int, event: Mapping[str, Any]) -> None:
        """Take in an event of a worker."""
        kind, number = event["event"], event.get("trial", -1)
        if kind == "started":
            self._names[number] = run_name(number, event["params"])
            self.running[worker] = {"trial": number, "epoch": None, "value": None}
        elif kind == "epoch":
            self.running[worker] = {"trial": number, "epoch": event["epoch"], "value": event["value"]}
        elif kind == "ended":
            self.running.pop(worker, None)
            self._ended(number, event)
        elif kind == "notice":
            self.say(str(event["text"]))
        elif kind == "done":
            self.running.pop(worker, None)

    def say(self, text: str) -> None:
        """Print a line above whatever is live."""
        self.console.print(Text(text), soft_wrap=True)

    def tick(self) -> None:
        """Draw anew."""
        if self._live is not None:
            self._live.update(self._drawn())

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _ended(self, number: int, event: Mapping[str, Any]) -> None:
        name, value, state = self._names.get(number, f"#{number}"), event["value"], event["state"]
        if state != "FAIL":
            self.n_done += 1
            self._done_here += 1
        if state == "COMPLETE":
            self._note_best(value, name)
        score = "" if value is None else f" {self.spec.metric}={value:.4f}"
        reason = f" ({str(event['reason']).splitlines()[0]})" if event.get("reason") else ""
        best = f"; best {self.best[0]:.4f} ({self.best[1]})" if self.best else ""
        of = f"/{self.n_trials}" if self.n_trials else ""
        self.say(f"[{self.n_done}{of}] {name}: {state}{score}{reason}{best}")

    def _note_best(self, value: float | None, name: str) -> None:
        if value is not None and (self.best is None or self.spec.better(value, self.best[0])):
            self.best = (value, name)

    def _drawn(self) -> Group:
        left = ""
        if self.n_trials and self._done_here:
            seconds = (time.monotonic() - self._began) / self._done_here * max(0, self.n_trials - self.n_done)
            left = f"about {_clock(seconds)} left"
        self._bar.update(self._task, total=self.n_trials, completed=self.n_done, left=left)
        table = Table.grid(padding=(0, 2))
        if self.best:
            table.add_row("best", f"{self.spec.metric} {self.best[0]:.4f}", self.best[1])
        for _, run in sorted(self.running.items()):
            epoch = "starting" if run["epoch"] is None else f"epoch {run['epoch']}"
            value = "" if run["value"] is None else f"{self.spec.metric} {run['value']:.4f}"
            table.add_row(epoch, value, self._names.get(run["trial"], ""))
        return Group(self._bar, table)


def best_table(spec: StudySpec, trials: Sequence[FrozenTrial], n_rows: int = 5) -> Table | None:
    """The best complete trials with their params; None where there is none."""
    ranked = ranking(spec, trials)[:n_rows]
    if not ranked:
        return None
    names = list(dict.fromkeys(name for trial in ranked for name in params_of(trial)))
    table = Table(title=f"best trials of {spec.name}, by their {spec.value} epoch", title_justify="left", box=SIMPLE)
    for column in ("trial", spec.metric, *names):
        table.add_column(column, justify="right", overflow="fold")
    for trial in ranked:
        params = params_of(trial)
        table.add_row(str(trial.number), f"{trial.value:.4f}", *(_short(params.get(name, "")) for name in names))
    return table


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
