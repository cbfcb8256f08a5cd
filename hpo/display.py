"""What a person sees while a study runs: a live display on a terminal, one plain line a trial on a pipe."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hpo.redaction import redacted
from hpo.report_values import Table as Words
from hpo.schedulers.protocol import PAUSED, params_of
from hpo.spec import StudySpec
from hpo.tracked import ranking, run_name


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
    n_epochs: int = 0
    """Trained in all, by this call and those before."""
    best: tuple[float, str] | None = None
    running: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """By worker and lane."""
    _began: float = field(default_factory=time.monotonic)
    _done_here: int = 0
    """What of the budget was spent in this call: trials, or epochs where those are the budget."""
    _names: dict[int, str] = field(default_factory=dict)
    _live: Live | None = None
    _bar: Progress = field(init=False)
    _task: Any = None

    def __post_init__(self) -> None:
        self._bar = Progress(
            TextColumn(f"[bold]{self.spec.name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs" if self._by_epochs() else "trials"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("", total=None, left="")

    def open(self, trials: Sequence[FrozenTrial], n_trials: int | None) -> None:
        """Begin with what the study has already."""
        self.n_trials = n_trials
        self.take_stock(trials)
        done, budget, _ = self._spent()
        under_way = sum(t.state == TrialState.RUNNING for t in trials)
        if done and (budget is None or done < budget):
            self.say(f"study {self.spec.name} goes on: {self.spent()}")
        elif done and under_way:
            self.say(f"study {self.spec.name} goes on: {self.spent()}, {under_way} under way")
        if self.console.is_terminal and self._live is None:
            self._live = Live(self._drawn(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def take_stock(self, trials: Sequence[FrozenTrial]) -> None:
        """Count what the store has: workers of another command may be at the same study."""
        self.n_done = sum(t.state.is_finished() and t.state.name != "FAIL" for t in trials)
        self.n_epochs = sum(len(t.intermediate_values) for t in trials)
        for trial in ranking(self.spec, trials)[:1]:
            self._note_best(trial.value, run_name(trial.number, params_of(trial)))

    def spent(self) -> str:
        """What is done of the budget, in words."""
        done, budget, unit = self._spent()
        return f"{done} of {budget or 'unbounded'} {unit} are done"

    def handle(self, worker: int, event: Mapping[str, Any]) -> None:
        """Take in an event of a worker."""
        kind, number, place = event["event"], event.get("trial", -1), (worker, event.get("lane", 0))
        if kind == "started":
            self._names[number] = run_name(number, event["params"])
            self.running[place] = {"trial": number, "epoch": None, "value": None}
        elif kind == "epoch":
            self.running[place] = {"trial": number, "epoch": event["epoch"], "value": event["value"]}
            self.n_epochs += event["new"]
            self._done_here += event["new"] and self._by_epochs()
        elif kind == "ended":
            self.running.pop(place, None)
            self._ended(number, event)
        elif kind == "rested":
            self._rested(number, self.running.pop(place, None), event["reason"])
        elif kind == "notice":
            self.say(str(event["text"]))
        elif kind == "done":
            self.running = {other: run for other, run in self.running.items() if other[0] != worker}

    def say(self, text: str) -> None:
        """Print a line above whatever is live."""
        self.console.print(Text(redacted(text)), soft_wrap=True)

    def tick(self) -> None:
        """Draw anew."""
        if self._live is not None:
            self._live.update(self._drawn())

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _by_epochs(self) -> bool:
        return self.spec.n_epochs is not None

    def _spent(self) -> tuple[int, int | None, str]:
        """What is done of the budget, in its own unit."""
        if self._by_epochs():
            return self.n_epochs, self.spec.n_epochs, "epochs"
        return self.n_done, self.n_trials, "trials"

    def _rested(self, number: int, run: Mapping[str, Any] | None, reason: str) -> None:
        """A pause is worth a line where it brings a new best: there are hundreds."""
        value = None if run is None else run["value"]
        if reason == PAUSED and value is not None and (self.best is None or self.spec.better(value, self.best[0])):
            name = self._names.get(number, f"#{number}")
            self._note_best(value, name)
            done, budget, unit = self._spent()
            of = f"/{budget}" if budget else ""
            self.say(f"[{done}{of} {unit}] {name}: paused, {self.spec.metric}={value:.4f}; the best so far")

    def _ended(self, number: int, event: Mapping[str, Any]) -> None:
        name, value, state = self._names.get(number, f"#{number}"), event["value"], event["state"]
        if state != "FAIL":
            self._done_here += not self._by_epochs()
        if state == "COMPLETE":
            self._note_best(value, name)
        score = "" if value is None else f" {self.spec.metric}={value:.4f}"
        reason = f" ({str(event['reason']).splitlines()[0]})" if event.get("reason") else ""
        best = f"; best {self.best[0]:.4f} ({self.best[1]})" if self.best else ""
        done, budget, _ = self._spent()
        of = (f"/{budget}" if budget else "") + (" epochs" if self._by_epochs() else "")
        self.say(f"[{done}{of}] {name}: {state}{score}{reason}{best}")

    def _note_best(self, value: float | None, name: str) -> None:
        if value is not None and (self.best is None or self.spec.better(value, self.best[0])):
            self.best = (value, name)

    def _drawn(self) -> Group:
        left = ""
        done, budget, _ = self._spent()
        if budget and self._done_here:
            seconds = (time.monotonic() - self._began) / self._done_here * max(0, budget - done)
            left = f"about {_clock(seconds)} left"
        self._bar.update(self._task, total=budget, completed=done, left=left)
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
    table = Table(box=SIMPLE)
    for column in ("trial", spec.metric, *names):
        table.add_column(column, justify="right", overflow="fold")
    for trial in ranked:
        params = params_of(trial)
        table.add_row(str(trial.number), f"{trial.value:.4f}", *(short(params.get(name, "")) for name in names))
    return table


def rich_table(found: Words) -> Table:
    """A table of a report, on a terminal."""
    table = Table(box=SIMPLE)
    for name in found.columns:
        table.add_column(name, overflow="fold")
    for row in found.rows:
        table.add_row(*(Text(value) for value in row))
    return table


def short(value: object) -> str:
    """A parameter as it fits into a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
