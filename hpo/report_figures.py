"""The report's figures: Optuna's own where it has one, thinned so that a page of a thousand trials opens at once."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import (
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
    plot_slice,
)

from hpo.report_plots import SHADES, Figure, Plot, bars, drawn, merged, shade, tidy_axis
from hpo.report_times import kinds, saved, spent
from hpo.report_values import outcome
from hpo.spec import StudySpec

N_BEST = 10
MAX_GREY = 100
"""Learning curves of trials that were ended early, at most."""
MAX_POINTS = 1_000
"""Trials in the slice plot, at most."""
MAX_LINES = 300
"""Trials in the parallel-coordinate plot, at most: with more, none of them can be followed."""
FEW = 20
"""With fewer trials importance is a hint at most."""
FEW_VALUES = 8
"""Of fewer values all are shown, however bad one is."""


def figures(spec: StudySpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> Iterator[Figure]:
    """The figures of the search, in the order in which they are read.

    Args:
        spec: of the study.
        trials: all.
        ranked: those whose values count, best first.
    """
    finite = [t for t in ranked if t.value is not None and math.isfinite(t.value)]
    whole = _shadow(spec, trials, finite)
    yield drawn("Optimization history", lambda: _history(spec, whole, finite))
    yield drawn("Learning curves", lambda: _curves(spec, trials, finite))
    yield drawn("Importance of the parameters", lambda: _importance(spec, whole, finite))
    yield drawn("Each parameter by itself", lambda: _slice(spec, trials, finite))
    yield drawn("All parameters together", lambda: _parallel(spec, trials, finite))


def time_figures(spec: StudySpec, trials: Sequence[FrozenTrial]) -> Iterator[Figure]:
    """Where the time went: by outcome, and by kind."""
    yield drawn("Device time by outcome", lambda: _outcomes(spec, trials))
    yield drawn("Time of the workers by kind", lambda: _kinds(trials))


def _shadow(spec: StudySpec, trials: Sequence[FrozenTrial], counted: Sequence[FrozenTrial]) -> optuna.Study:
    """The study in memory, with the same numbers, in which exactly the trials that count are complete.

    Plotly reads names as HTML, so they are escaped.
    """
    study = optuna.create_study(direction=spec.direction, sampler=optuna.samplers.RandomSampler(0))
    left_out, by_number = create_trial(state=TrialState.FAIL), {t.number: t for t in counted}
    for number in range(max((t.number for t in trials), default=-1) + 1):
        study.add_trial(_complete(by_number[number]) if number in by_number else left_out)
    return study


def _complete(trial: FrozenTrial) -> FrozenTrial:
    inside = {k: d for k, d in trial.distributions.items() if d._contains(d.to_internal_repr(trial.params[k]))}  # noqa: SLF001
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.value,
        params={html.escape(k, quote=False): _escaped_value(trial.params[k]) for k in inside},
        distributions={html.escape(k, quote=False): _escaped(d) for k, d in inside.items()},
    )


def _escaped(distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([_escaped_value(choice) for choice in distribution.choices])
    return distribution


def _escaped_value(value: Any) -> Any:
    return html.escape(value, quote=False) if isinstance(value, str) else value


def _sampled(trials: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """At most so many, evenly spread, the first among them."""
    step = max(1.0, len(trials) / most)
    return [trials[int(i * step)] for i in range(min(most, len(trials)))]


def _history(spec: StudySpec, study: optuna.Study, ranked: Sequence[FrozenTrial]) -> Plot | str:
    if not ranked:
        return "No trial has a value: all of them diverged, failed or were pruned."
    figure = plot_optimization_history(study, target_name=html.escape(spec.metric, quote=False))
    names = {"Best Value": "best so far", html.escape(spec.metric, quote=False): "trial"}
    figure.for_each_trace(lambda trace: trace.update(name=names.get(trace.name, trace.name)))
    figure.update_traces(line={"shape": "hv", "color": "#d1495b", "width": 2}, selector={"mode": "lines"})
    figure.update_traces(marker={"color": "#30638e", "size": 6}, selector={"name": "trial"})
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    tidy_axis(figure.layout.xaxis, [0, *(t.number for t in ranked)])
    values = [t.value for t in ranked if t.value is not None]
    more = _zoom(spec, figure, values)
    return Plot(f"Each point is a trial's {spec.value} {spec.metric}; the line is the best so far.{more}", figure)


def _limit(spec: StudySpec, values: Sequence[float]) -> float | None:
    """The worst value that is shown where a few are so bad that all others would lie on one line; None elsewhere."""
    badness = sorted(-spec.sign * v for v in values if math.isfinite(v))
    if len(badness) < FEW_VALUES:
        return None
    best, most = badness[0], badness[int(0.75 * (len(badness) - 1))]
    bound = most + 10 * (most - best)
    return -spec.sign * bound if best < most and bound < badness[-1] else None


def _zoom(spec: StudySpec, figure: Any, values: Sequence[float]) -> str:
    """Leave values that are far worse than most out of sight; words that say so."""
    limit = _limit(spec, values)
    if limit is None:
        return ""
    shown = [v for v in values if math.isfinite(v) and not spec.better(limit, v)]
    pad = 0.05 * (max(shown) - min(shown))
    figure.update_yaxes(range=[min(shown) - pad, max(shown) + pad])
    return f" Far worse, and out of sight: {len(values) - len(shown)}."


def _curves(spec: StudySpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> Plot | str:
    best = [t for t in ranked[:N_BEST] if t.intermediate_values]
    numbers = {t.number for t in best}
    early = [t for t in trials if outcome(t) in {"pruned", "paused", "diverged"} and t.intermediate_values]
    early = [t for t in early if t.number not in numbers]
    if not best and not early:
        return "No trial has reported an epoch."
    figure = go.Figure()
    grey = _sampled(early, MAX_GREY)
    if grey:
        x = [e for t in grey for e in [*sorted(t.intermediate_values), None]]
        y = [v for t in grey for v in [*(t.intermediate_values[e] for e in sorted(t.intermediate_values)), None]]
        style = {"color": "#b5b5b5", "width": 0.8}
        single = all(len(t.intermediate_values) == 1 for t in grey)  # of which a line shows nothing
        figure.add_scatter(
            x=x, y=y, mode="markers" if single else "lines", line=style, marker={"color": "#b5b5b5", "size": 4},
            name="ended early", hoverinfo="skip",
        )  # fmt: skip
    for place, trial in reversed(list(enumerate(best))):
        epochs = sorted(trial.intermediate_values)
        figure.add_scatter(
            x=epochs, y=[trial.intermediate_values[e] for e in epochs], name=f"trial {trial.number}",
            mode="lines+markers" if len(epochs) < 3 else "lines", legendrank=place,
            line={"color": shade(1 - place / N_BEST), "width": 2},
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": "epoch"}, yaxis={"title": html.escape(spec.metric, quote=False)}, hovermode="closest",
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
    )  # fmt: skip
    tidy_axis(figure.layout.xaxis, [e for t in [*best, *grey] for e in t.intermediate_values])
    shown = f"{len(grey)} of {len(early)}" if len(grey) < len(early) else str(len(early))
    words = f"The {len(best)} best trials, the best darkest." if best else ""
    words += f" Thin and grey: {shown} trials that were pruned, paused or diverged." if early else ""
    more = _zoom(spec, figure, [v for t in [*best, *grey] for v in t.intermediate_values.values()])
    return Plot(words + more, figure, height=460)


def _importance(spec: StudySpec, study: optuna.Study, ranked: Sequence[FrozenTrial]) -> Plot | str:
    names = {name for t in ranked for name in t.params}
    if len(names) < 2:
        return "Importance compares parameters: it takes two or more."
    if len({t.value for t in ranked}) < 2:
        return "Importance can't be computed: it takes two or more trials with different values."
    figure = plot_param_importances(study, target_name=html.escape(spec.metric, quote=False))
    found = [x for trace in figure.data for x in trace.x]
    if not found or not all(math.isfinite(x) for x in found):
        return "Importance can't be computed of these trials."
    figure.update_traces(marker={"color": "#30638e"})
    figure.update_layout(
        xaxis={"title": "share of the importance", "range": [0, 1.15 * max(found) or 1]},
        yaxis={"title": None, "automargin": True},
    )
    hint = f" Of {len(ranked)} trials that is a hint at most." if len(ranked) < FEW else f" Of {len(ranked)} trials."
    words = "How much of the difference between good and other trials each parameter explains (PED-ANOVA)."
    return Plot(words + hint, figure, height=110 + 36 * len(found))


def _slice(spec: StudySpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> Plot | str:
    n = _n_params(ranked)
    if not n:
        return "No trial with a value has a parameter."
    study, more = _sample(spec, trials, ranked, MAX_POINTS)
    figure = plot_slice(study, target_name=html.escape(spec.metric, quote=False))
    figure.update_layout(width=None, autosize=True)
    figure.update_traces(marker={"size": 5, "opacity": 0.8, "colorscale": SHADES})
    for trace in figure.data:
        tidy_axis(figure.layout[f"xaxis{(trace.xaxis or 'x')[1:]}"], trace.x or ())
    words = "Each point is a trial; the later, the darker. Axes are logarithmic where the space is."
    return Plot(words + more, figure, min_width=90 + 170 * n)


def _parallel(spec: StudySpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> Plot | str:
    n = _n_params(ranked)
    if not n:
        return "No trial with a value has a parameter."
    study, more = _sample(spec, trials, ranked, MAX_LINES)
    figure = merged(plot_parallel_coordinate(study, target_name=html.escape(spec.metric, quote=False)), sign=spec.sign)
    figure.update_annotations(bgcolor="rgba(255,255,255,0.8)", font={"color": "#1c2126"})
    words = f"Each line is a trial: {spec.metric} on the left, then its parameters; the best lie on top."
    return Plot(words + more, figure, min_width=140 * (n + 1), height=420)


def _n_params(ranked: Sequence[FrozenTrial]) -> int:
    return len({name for t in ranked for name in t.params})


def _sample(
    spec: StudySpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial], most: int
) -> tuple[optuna.Study, str]:
    """The study with at most so many trials, evenly spread from the best to the worst; and words that say so."""
    limit = _limit(spec, [t.value for t in ranked if t.value is not None])
    near = [t for t in ranked if limit is None or t.value is None or not spec.better(limit, t.value)]
    more = f" {most} of {len(near)} trials, from the best to the worst." if len(near) > most else ""
    more += f" Far worse, and left out: {len(ranked) - len(near)}." if len(near) < len(ranked) else ""
    return _shadow(spec, trials, _sampled(near, most)), more


def _outcomes(spec: StudySpec, trials: Sequence[FrozenTrial]) -> Plot | str:
    rows = [(one.outcome, one.seconds) for one in spent(trials) if one.seconds]
    if not rows:
        return "No trial has noted its device time."
    estimate = saved(spec, trials).seconds
    return bars([*rows, *([("saved (estimate)", estimate)] if estimate else [])], "What trials of each outcome took.")


def _kinds(trials: Sequence[FrozenTrial]) -> Plot | str:
    rows = list(kinds(trials).items())
    if not rows:
        return "No trial has noted what its time went to."
    words = "Checkpoint is all that is written, service what the service does meanwhile, waiting is for other workers."
    return bars(rows, words)
