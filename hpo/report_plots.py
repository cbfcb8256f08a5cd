"""What the report's figures share: their form on the page, thin JSON, and what is put in place of one that fails."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

log = logging.getLogger("hpo")

N_SHADES = 12
MANY = 6
"""Over so many whole numbers the ticks are plotly's."""
WIDE = 18
"""Choices of more letters in all are written upright."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the page.

    Attributes:
        title: its heading.
        words: what it shows, and of what.
        json: plotly's data and layout, safe inside a script element; None where it can't be drawn: `words` say why.
        min_width: pixels below which it scrolls in its own box.
        height: pixels.
    """

    title: str
    words: str
    json: str | None = None
    min_width: int = 0
    height: int = 380


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure as plotly has it, before it is made ready for the page; fields as in `Figure`."""

    words: str
    figure: Any
    min_width: int = 0
    height: int = 380


def drawn(title: str, draw: Callable[[], Plot | str]) -> Figure:
    """The figure that `draw` makes; a sentence where it gives one, or fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna, on what it leaves out
            plot = draw()
        if isinstance(plot, str):
            return Figure(title, plot)
        return Figure(title, plot.words, to_json(plot), plot.min_width, plot.height)
    except Exception as error:  # whatever values a study holds, the rest of the page is due
        log.debug("%s can't be drawn", title, exc_info=True)
        return Figure(title, f"This can't be drawn of these trials: {type(error).__name__}: {str(error)[:200]}")


def merged(figure: Any, *, sign: float) -> Any:
    """The same lines in a few traces: Optuna makes one for each trial, and a thousand take a browser seconds.

    Args:
        figure: Optuna's parallel coordinates.
        sign: 1 where more is better, -1 where less is: the best lie on top.
    """
    lines = [t for t in figure.data if t.mode == "lines" and t.y and t.y[0] is not None]
    lines.sort(key=lambda t: sign * t.y[0])
    others = [t for t in figure.data if t.mode != "lines"]
    for trace in others:
        trace.marker.colorscale = SHADES
    size = max(1, math.ceil(len(lines) / N_SHADES))
    groups = [lines[start : start + size] for start in range(0, len(lines), size)]
    traces = [_joined(group, shade(_strength(group, sign))) for group in groups]
    return go.Figure([*traces, *others], figure.layout)


def _strength(lines: Sequence[Any], sign: float) -> float:
    """How good the middle one of some lines is, in [0, 1]: Optuna has their heights so."""
    height = float(lines[len(lines) // 2].y[0])
    return height if sign > 0 else 1 - height


def _joined(lines: Sequence[Any], colour: str) -> Any:
    """Lines as one trace, with gaps between them."""
    return go.Scatter(
        x=[x for t in lines for x in [*t.x, None]],
        y=[y for t in lines for y in [*t.y, None]],
        customdata=[words for t in lines for words in [*([str(w) for w in pair] for pair in t.customdata), None]],
        mode="lines",
        line={"color": colour, "width": 1.1},
        opacity=0.7,
        showlegend=False,
        hovertemplate=lines[0].hovertemplate,
    )


def tidy_axis(axis: Any, values: Sequence[Any]) -> None:
    """Ticks that can be read: whole numbers as such, whole decades, choices without Optuna's quotes."""
    if axis.type == "category" and axis.categoryarray:
        labels = [str(name) for name in axis.categoryarray]
        plain = [name[1:-1] if name[:1] == name[-1:] == "'" else name for name in labels]
        upright = sum(map(len, plain)) > WIDE
        axis.update(tickmode="array", tickvals=labels, ticktext=plain, tickangle=90 if upright else 0)
        return
    numbers = [v for v in values if isinstance(v, int | float)]
    if not numbers:
        return
    if axis.type == "log":
        if min(numbers) > 0 and max(numbers) / min(numbers) >= 10:
            axis.update(dtick=1)
    elif all(isinstance(v, int) for v in numbers) and max(numbers) - min(numbers) <= MANY:
        axis.update(dtick=1, range=[min(numbers) - 0.5, max(numbers) + 0.5])


def bars(rows: Sequence[tuple[str, float]], words: str) -> Plot:
    """Named seconds as bars, in the unit that suits them."""
    most = max(seconds for _, seconds in rows)
    unit, size = next(
        (u, s) for u, s in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0)) if most >= 2 * s or s == 1
    )
    values = [seconds / size for _, seconds in rows]
    figure = go.Figure(
        go.Bar(
            x=values, y=[name for name, _ in rows], orientation="h", text=[f"{v:.3g}" for v in values],
            textposition="outside", cliponaxis=False,
            marker={"color": ["#c9c9c9" if "estimate" in name else "#30638e" for name, _ in rows]},
        )
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": unit, "range": [0, 1.2 * max(values)]}, yaxis={"autorange": "reversed", "automargin": True}
    )
    return Plot(words, figure, height=110 + 32 * len(rows))


def shade(strength: float) -> str:
    """A blue, the darker the stronger, in [0, 1]."""
    pale, dark = (158, 202, 225), (8, 48, 107)
    return "#" + "".join(f"{round(p + (d - p) * strength):02x}" for p, d in zip(pale, dark, strict=True))


SHADES = [[0, shade(0)], [1, shade(1)]]


_LAYOUT = {
    "title": None,
    "template": "none",
    "autosize": True,
    "margin": {"l": 56, "r": 16, "t": 34, "b": 52},
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": "#1c2126"},
    "paper_bgcolor": "#fff",
    "plot_bgcolor": "#fff",
}
_AXIS = {"gridcolor": "#e6e8ea", "linecolor": "#9aa0a6", "zeroline": False, "automargin": True}


def to_json(plot: Plot) -> str:
    """Plotly's JSON with values in five digits, in a form that may stand inside a script element."""
    figure = plot.figure
    figure.update_layout(**_LAYOUT)
    figure.update_xaxes(**_AXIS)
    figure.update_yaxes(**_AXIS)
    text = json.dumps(_thin(figure.to_plotly_json()), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("/", "\\/")


def _thin(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _thin(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_thin(v) for v in value]
    if hasattr(value, "tolist"):
        return _thin(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else str(value)
