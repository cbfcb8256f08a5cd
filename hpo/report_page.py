"""The report as one HTML file that needs nothing else: figures, pictures and plotly itself are in it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
from markupsafe import Markup, escape

from hpo.report_claim import best_table, claim, confirmed_table, paper_table
from hpo.report_facts import Facts, confirm_command, failures_table, reproduction_table, run_commands
from hpo.report_figures import figures, time_figures
from hpo.report_plots import Figure
from hpo.report_review import Review
from hpo.report_times import saved_words, times_table
from hpo.report_values import outcome, value_words

TEMPLATE = Path(__file__).with_name("report.html.jinja")
N_BEST = 20
_UNIT = re.compile(r"(?<=\d) (?=%|points)")
"""Between a number and its unit no line ends."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the head: a number, and what it is."""

    value: str
    words: str


def page(facts: Facts, review: Review) -> str:
    """The whole page."""
    spec, confirmed = facts.spec, facts.confirmation
    search = list(figures(spec, facts.trials, facts.ranked))
    times = list(time_figures(spec, facts.trials))
    content: dict[str, Any] = {
        "name": spec.name,
        "subtitle": f"{spec.direction} the {spec.value} {spec.metric}",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "claim": claim(spec, facts.ranked, confirmed, confirm_command(facts)),
        "tiles": list(_tiles(facts)),
        "confirmed": None if confirmed is None else confirmed_table(confirmed),
        "confirm_command": confirm_command(facts),
        "paper": paper_table(spec, facts.dataset.get("name")),
        "search": search,
        "times": times,
        "times_table": times_table(facts.trials),
        "saved": saved_words(spec, facts.trials),
        "review": review,
        "best": best_table(spec, facts.ranked, N_BEST) if facts.ranked else None,
        "failures": failures_table(facts.trials),
        "commands": run_commands(facts),
        "reproduction": reproduction_table(facts),
        "plotly": _plotly([*search, *times]),
    }
    return rendered(content)


def rendered(content: dict[str, Any]) -> str:
    """The template, filled in: whatever is no `Markup` is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_written
    )
    environment.filters["json_of"] = _json_of
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(content)


def _written(value: Any) -> Any:
    """Escape a value; an address in it stays readable, and can't be taken for something that the page loads."""
    if isinstance(value, Markup) or callable(value):
        return value
    text = _UNIT.sub("&nbsp;", str(escape(value)).replace("://", ":&#47;&#47;"))
    return Markup(text)  # noqa: S704  it was escaped just now


def _json_of(figure: Figure) -> Markup:
    """A figure's JSON, made to stand inside a script element."""
    return Markup(figure.json or "null")  # noqa: S704  `to_json` leaves no `<` in it


def _plotly(drawn: Sequence[Figure]) -> Markup:
    """Plotly itself, once; nothing where no figure needs it."""
    if not any(figure.json for figure in drawn):
        return Markup("")
    return Markup(plotly.offline.get_plotlyjs().replace("</script", "<\\/script"))  # noqa: S704  a library's own text


def _tiles(facts: Facts) -> Iterator[Tile]:
    metric, found = facts.spec.metric, facts.confirmation
    if found is not None:
        yield Tile(value_words(metric, found.best.estimate.mean), f"confirmed {metric}, mean of {found.n_seeds} seeds")
        if found.test is not None:
            yield Tile(value_words(found.test.metric, found.test.estimate.mean), "on the test split")
    elif facts.ranked:
        yield Tile(value_words(metric, facts.ranked[0].value), f"best {metric} of the search, unconfirmed")
    counts = Counter(outcome(t) for t in facts.trials)
    others = ", ".join(f"{n} {name}" for name, n in counts.items())
    yield Tile(str(len(facts.trials)), f"trials: {others}")
    yield Tile(f"{sum(len(t.intermediate_values) for t in facts.trials):,}", "epochs trained")
