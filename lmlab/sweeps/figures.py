"""A report's pictures, as plotly.js takes them: plain data, with every text of the user's made harmless.

plotly reads a few HTML tags in texts; what comes from a sweep (settings, messages) is escaped, and shows as written.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmlab.sweeps.report import Report, Variant, short_names
from lmlab.sweeps.results import Trial
from lmlab.sweeps.statistics import MainEffect, bands
from lmlab.sweeps.tables import bootstrap_text, difference_text, mean_text, p_text, unfinished_text

LONGEST_CURVE = 400
"""Points of a curve that are drawn; of longer ones every second, third, ..."""

SHOWN_AT_FIRST = 12
"""Variants whose curves are drawn at once; the legend brings the others."""

SIGNIFICANT = 0.05

_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#8c6d31",
    "#6b4c9a",
    "#4d4d4d",
    "#b2a500",
)
_STATUS = {"ok": "#0072b2", "running": "#e69f00", "waiting": "#e69f00", "interrupted": "#e69f00", "pending": "#bbbbbb",
           "pruned": "#999999"}  # fmt: skip
_FAILED = "#c0392b"
_SCALE = (
    (0.0, (68, 1, 84)),
    (0.25, (59, 82, 139)),
    (0.5, (33, 145, 140)),
    (0.75, (94, 201, 98)),
    (1.0, (220, 200, 30)),
)
"""Viridis, by its own colours at the quarters; its last one is darkened, to be seen on white."""

Figure = dict[str, Any]


class Picture(NamedTuple):
    """A figure under a heading, with what is to be known to read it."""

    title: str
    note: str
    figure: Figure


def pictures(report: Report) -> list[Picture]:
    """All of them, each only where there is something to draw."""
    return [*_curves(report), *_differences(report), *_effects(report), *_parallel(report), *_costs(report)]


def _curves(report: Report) -> Iterator[Picture]:
    metrics = dict.fromkeys([report.metric, "train/loss"])
    for metric in metrics:
        traces: list[Any] = []
        for place, variant in enumerate(report.variants):
            traces += _curve(variant, metric, _colour(report, variant), place < SHOWN_AT_FIRST)
        if traces:
            shown = f" The best {SHOWN_AT_FIRST} variants are drawn; the legend brings the others." * (
                len(report.variants) > SHOWN_AT_FIRST
            )
            note = (
                "Lines: means over the seeds that finished; bands: 95 % t intervals; dotted, to a cross: what failed."
            )
            yield Picture(f"Learning curves: {metric}", note + shown, _figure(traces, "step", metric, height=460))


def _curve(variant: Variant, metric: str, colour: str, shown: bool) -> Iterator[dict[str, Any]]:
    """The traces of a variant: its mean, its band, and a line for each trial that failed."""
    found = [curve for trial in variant.trials if trial.status == "ok" and (curve := trial.curve(metric))[0]]
    shared = sorted(set.intersection(*(set(steps) for steps, _ in found))) if found else []
    kept = _thinned(shared)
    name = _text(variant.label)
    common: Figure = {"legendgroup": name, "name": name, "visible": True if shown else "legendonly"}
    if kept:
        by_step = [dict(zip(*curve, strict=True)) for curve in found]
        middle, margin = bands(np.asarray([[values[step] for step in kept] for values in by_step]))
        if margin is not None:
            edge = [*(middle + margin).tolist(), *(middle - margin)[::-1].tolist()]
            yield {
                **common, "type": "scatter", "x": [*kept, *kept[::-1]], "y": _numbers(edge), "fill": "toself",
                "fillcolor": _faint(colour), "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            }  # fmt: skip
        hover = [f"{name}<br>step {step}: {value:.5g}" for step, value in zip(kept, middle, strict=True)]
        yield {**common, **_line(kept, _numbers(middle.tolist()), colour, hover)}
    named = bool(kept)
    for trial in variant.trials:
        if trial.failed and (broken := _broken_off(trial, metric, name, colour)):
            yield {**common, **broken, "showlegend": not named}
            named = True


def _broken_off(trial: Trial, metric: str, name: str, colour: str) -> Figure | None:
    """The line of a trial that failed, dotted, with a cross at its end; None where nothing was recorded."""
    steps, values = trial.curve(metric)
    if not steps:
        return None
    steps, values = _thinned(steps), _thinned(values)
    told = f"{name}<br>{_about(trial)}<br>step"
    hover = [f"{told} {step}: {value:.5g}" for step, value in zip(steps, values, strict=True)]
    before = len(steps) - 1
    marker = {"symbol": ["circle"] * before + ["x"], "size": [1] * before + [10]}
    return {**_line(steps, _numbers(values), colour, hover, "dot"), "mode": "lines+markers", "marker": marker}


def _thinned(points: list[Any]) -> list[Any]:
    """At most `LONGEST_CURVE` of them, evenly, the last one included."""
    return points[:: -max(1, math.ceil(len(points) / LONGEST_CURVE))][::-1]


def _differences(report: Report) -> Iterator[Picture]:
    rows = [variant for variant in reversed(report.variants) if variant is not report.baseline]
    if report.baseline is None or not rows:
        return
    zero = _line([0, 0], [-0.6, len(rows) - 0.4], "#888888", [], "dot")
    traces: list[Any] = [{**zero, "hoverinfo": "skip", "showlegend": False}]
    for y, variant in enumerate(rows):
        traces += _difference(report, variant, y)
    layout = {"yaxis": {"tickvals": list(range(len(rows))), "ticktext": [_text(v.label) for v in rows],
                        "automargin": True, "range": [-0.7, len(rows) - 0.3], "zeroline": False}}  # fmt: skip
    note = (
        f"Variant minus baseline ({report.baseline.label}), seed by seed: dots are seeds, thick lines the 95 % t "
        "interval, thin lines below them the bootstrap interval. Green: better, red: worse, at a corrected p below "
        f"{SIGNIFICANT}."
    )
    height = 140 + 34 * len(rows)
    yield Picture(
        "Paired differences from the baseline", note,
        _figure(traces, f"difference in {report.metric}", "", height=height, **layout),
    )  # fmt: skip


def _difference(report: Report, variant: Variant, y: int) -> Iterator[dict[str, Any]]:
    found = variant.difference
    common = {"type": "scatter", "showlegend": False, "hoverinfo": "text"}
    if found is None:
        what = unfinished_text(variant) or "no seed in common with the baseline"
        yield {**common, "x": [0], "y": [y], "mode": "text", "text": [_text(what)], "textposition": "middle right",
               "textfont": {"color": _FAILED}, "hovertext": [_text(what)]}  # fmt: skip
        return
    colour = "#555555"
    if found.holm is not None and found.holm < SIGNIFICANT:
        colour = "#1b7f4b" if (found.mean.value < 0) == (report.better == "lower") else _FAILED
    told = (f"{_text(variant.label)}<br>{difference_text(variant)}<br>bootstrap {bootstrap_text(variant)}"
            f"<br>p (Holm) {p_text(found.holm)}")  # fmt: skip
    seeds = [
        f"{_text(variant.label)}<br>seed {s}: {d:+.5g}" for s, d in zip(found.seeds, found.differences, strict=True)
    ]
    yield {**common, "x": list(found.differences), "y": [y + 0.16] * len(seeds), "mode": "markers", "hovertext": seeds,
           "marker": {"color": colour, "size": 5, "opacity": 0.45}}  # fmt: skip
    for interval, width, below in ((found.mean.interval, 4, 0.0), (found.bootstrap, 1.5, 0.16)):
        if interval is not None:
            yield {**common, "x": list(interval), "y": [y - below] * 2, "mode": "lines", "hovertext": [told] * 2,
                   "line": {"color": colour, "width": width}}  # fmt: skip
    yield {**common, "x": [found.mean.value], "y": [y], "mode": "markers", "hovertext": [told],
           "marker": {"color": colour, "size": 11, "symbol": "diamond"}}  # fmt: skip


def _effects(report: Report) -> Iterator[Picture]:
    for effect in report.effects:
        yield Picture(f"Main effect of {effect.axis}", _effect_note(effect), _effect(report, effect))


def _effect_note(effect: MainEffect) -> str:
    if effect.contexts:
        others = f"{effect.contexts} setting{'s' * (effect.contexts > 1)} of the other axes"
        return f"Each value is averaged over the same {others}; intervals are over seeds."
    return (
        "The trials behind each value differ in other axes, too: nothing is held equal here; intervals are over trials."
    )


def _effect(report: Report, effect: MainEffect) -> Figure:
    means = [level.mean for level in effect.levels]
    places = list(range(len(means)))
    hover = [f"{_text(level.value)}<br>{mean_text(level.mean)}" for level in effect.levels]
    trace = {
        **_line(places, [mean.value for mean in means], _COLOURS[0], hover), "mode": "lines+markers",
        "error_y": {"type": "data", "array": [mean.margin or 0 for mean in means], "thickness": 1.5, "width": 6},
        "marker": {"size": 8}, "showlegend": False,
    }  # fmt: skip
    ticks = {"tickvals": places, "ticktext": [_text(level.value) for level in effect.levels], "automargin": True}
    return _figure([trace], effect.axis, report.metric, height=300, xaxis=ticks)


def _parallel(report: Report) -> Iterator[Picture]:
    """Parallel coordinates as plain lines, one per trial: they need no WebGL, and say what they are when pointed at."""
    axes = [axis for axis in report.results.axes if len({t.settings.get(axis) for t in report.results.trials}) > 1]
    values = [value for variant in report.variants for value in variant.values.values()]
    if not axes or not values:
        return
    low, high = min(values), max(values)
    places = {axis: _places([t.settings.get(axis) for t in report.results.trials]) for axis in axes}
    traces = []
    for variant in report.variants:
        for trial in variant.trials:
            value = variant.values.get(trial.seed)
            if value is not None or trial.failed:
                share = None if value is None else (value - low) / (high - low) if high > low else 0.5
                traces.append(_path(variant, trial, [places[a][trial.settings.get(a)] for a in axes], share, value))
    note = (
        f"A line for each trial, from its settings to {report.metric} on the right ({low:.5g} below, {high:.5g} "
        "above), yellow where that is high; red and dotted where it failed."
    )
    yield Picture("Parallel coordinates", note, _figure(traces, "", "", height=480, **_upright(report, axes, places)))


def _places(values: Sequence[str | None]) -> dict[str | None, float]:
    """Where the values of an axis stand on it, from 0 to 1: numbers by size, others as they come."""
    there = list(dict.fromkeys(values))
    if all(_number(value) is not None for value in there):
        there.sort(key=lambda value: _number(value) or 0.0)
    return {value: (k + 0.5) / len(there) for k, value in enumerate(there)}


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _path(variant: Variant, trial: Trial, places: list[float], share: float | None, value: float | None) -> Any:
    aside = 0.0 if share is None else 0.05 * (share - 0.5)  # lines through one place are told apart by their ends
    end = -0.12 if share is None else share
    told = f"{_text(variant.label)}<br>{_about(trial)}" + ("" if value is None else f"<br>{value:.6g}")
    line = {"color": _FAILED, "dash": "dot", "width": 1.2} if share is None else {"color": _shade(share), "width": 1.4}
    y = [*(place + aside for place in places), end]
    return {"type": "scatter", "mode": "lines+markers", "x": list(range(len(y))), "y": y, "line": line, "opacity": 0.8,
            "marker": {"size": 4}, "hoverinfo": "text", "hovertext": [told] * len(y), "showlegend": False}  # fmt: skip


def _upright(report: Report, axes: Sequence[str], places: dict[str, dict[str | None, float]]) -> dict[str, Any]:
    """The layout of parallel axes: one upright line each, its name above, its values beside it."""
    names = [*short_names(axes).values(), report.metric]
    beside = [
        {"x": k, "y": y, "text": _text(value or "(not there)"), "xanchor": "right", "xshift": -6, "showarrow": False,
         "bgcolor": "rgba(255,255,255,0.75)", "font": {"size": 11}}
        for k, axis in enumerate(axes) for value, y in places[axis].items()
    ]  # fmt: skip
    upright = [{"type": "line", "x0": k, "x1": k, "y0": 0, "y1": 1, "line": {"color": "#999999", "width": 1},
                "layer": "below"} for k in range(len(names))]  # fmt: skip
    return {
        "annotations": beside, "shapes": upright,
        "xaxis": {"tickvals": list(range(len(names))), "ticktext": [_text(name) for name in names], "side": "top",
                  "showgrid": False, "zeroline": False, "range": [-0.6, len(names) - 0.7]},
        "yaxis": {"visible": False, "range": [-0.2, 1.08]}, "margin": {"l": 20, "r": 20, "t": 70, "b": 10},
    }  # fmt: skip


def _costs(report: Report) -> Iterator[Picture]:
    pairs = [(variant, trial) for variant in report.variants for trial in variant.trials]
    timed = [(variant, trial) for variant, trial in pairs if trial.seconds is not None]
    if not timed:
        return
    bars: dict[str, Any] = {}
    for place, (variant, trial) in enumerate(pairs):
        bar = bars.setdefault(trial.status, {
            "type": "bar", "name": trial.status, "x": [], "y": [], "hovertext": [], "hoverinfo": "text",
            "marker": {"color": _STATUS.get(trial.status, _FAILED)},
        })  # fmt: skip
        bar["x"].append(place)
        bar["y"].append(trial.seconds or 0)
        bar["hovertext"].append(f"{_text(variant.label)}<br>{_about(trial)}<br>{_cost(trial)}")
    total = sum(trial.seconds or 0 for _, trial in timed)
    note = f"Wall time of all attempts, in the order of the table: {total:,.0f} s together. Point at one for its speed."
    figure = _figure(list(bars.values()), "trial", "seconds", height=300, barmode="overlay")
    yield Picture("Cost of each trial", note, figure)


def _cost(trial: Trial) -> str:
    seconds = "" if trial.seconds is None else f"{trial.seconds:,.1f} s"
    speed = trial.tokens_per_second
    return seconds + (f", {trial.tokens:,.0f} tokens at {speed:,.0f} tokens/s" if speed else "")


def _about(trial: Trial) -> str:
    why = f": {_text(trial.message[:120])}" if trial.message else ""
    return f"trial {trial.id}, seed {trial.seed}, {trial.status}{why}"


def _line(x: Sequence[float], y: Sequence[float | None], colour: str, hover: list[str], dash: str = "solid") -> Figure:
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "line": {"color": colour, "dash": dash},
            "hoverinfo": "text", "hovertext": hover}  # fmt: skip


def _figure(traces: list[Any], x: str, y: str, *, height: int, **layout: Any) -> Figure:
    """The figure with its axes named; `layout` adds to that."""
    xaxis = {"title": {"text": _text(x)}, "gridcolor": "#eeeeee", **layout.pop("xaxis", {})}
    yaxis = {"title": {"text": _text(y)}, "gridcolor": "#eeeeee", **layout.pop("yaxis", {})}
    plain = {
        "height": height, "margin": {"l": 60, "r": 20, "t": 24, "b": 50}, "hovermode": "closest", "xaxis": xaxis,
        "yaxis": yaxis, "plot_bgcolor": "white", "paper_bgcolor": "white", "font": {"size": 12},
    }  # fmt: skip
    return {"data": traces, "layout": {**plain, **layout}}


def _colour(report: Report, variant: Variant) -> str:
    if variant is report.baseline:
        return "#000000"
    return _COLOURS[report.variants.index(variant) % len(_COLOURS)]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _shade(share: float) -> str:
    """The colour for a place between 0 and 1."""
    at = [place for place, _ in _SCALE]
    return "rgb({:.0f},{:.0f},{:.0f})".format(*(np.interp(share, at, [c[k] for _, c in _SCALE]) for k in range(3)))


def _numbers(values: Sequence[float]) -> list[float | None]:
    """What JSON can say: None for what is not finite."""
    return [value if math.isfinite(value) else None for value in values]


def _text(text: str) -> str:
    return html.escape(text, quote=False)
