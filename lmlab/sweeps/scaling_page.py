"""A scaling law as one HTML page: the losses of all runs beside the law's, and the best use of compute."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmlab.sweeps.figures import Figure
from lmlab.sweeps.page import document, table
from lmlab.sweeps.scaling import Rung, Scaling
from lmlab.sweeps.scaling_text import frontier_rows, law_rows, run_rows, summary

_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#c7a00a", "#d55e00")
_LINE_POINTS = 60


def page(found: Sequence[Scaling], budgets: Sequence[float] = ()) -> str:
    """The whole page, with a part for each law.

    Raises:
      ConfigError: plotly is not installed.
    """
    figures = [figure for one in found for figure in (curves(one), frontier(one))]
    return document(f"{found[0].name}: scaling", _body(found, budgets), figures)


def _body(found: Sequence[Scaling], budgets: Sequence[float]) -> Iterator[str]:
    yield f"<h1>{html.escape(found[0].name)}: scaling</h1>"
    for place, one in enumerate(found):
        yield f"<h2>{html.escape(summary(one))}</h2>"
        yield "<ul class='note'>" + "".join(f"<li>{html.escape(note)}</li>" for note in one.notes) + "</ul>"
        rows, head = law_rows(one)
        yield table(head, rows)
        yield "<p class='note'>Dots: runs; open ones are held out. Lines: the law for each size.</p>"
        yield f"<div id='figure{2 * place}'></div>"
        yield "<p class='note'>Dots: runs by what they cost; line: the law's loss for the best use of each budget.</p>"
        yield f"<div id='figure{2 * place + 1}'></div>"
        for rows, head in (frontier_rows(one, budgets), run_rows(one)):
            yield table(head, rows)


def curves(found: Scaling) -> Figure:
    """Loss against tokens, a line of the law for each size."""
    traces = []
    tokens = [rung.tokens for rung in found.rungs]
    x = np.geomspace(min(tokens), max(tokens), _LINE_POINTS)
    for place, size in enumerate(sorted({rung.parameters for rung in found.rungs})):
        colour, name = _COLOURS[place % len(_COLOURS)], f"N = {size:,.0f}"
        there = [rung for rung in found.rungs if rung.parameters == size and rung.loss is not None]
        y = found.fit.law.loss(size, x)
        traces.append(_trace(x, y, name, "lines", line={"color": colour, "width": 1.5}, legendgroup=name))
        traces.append(_dots(found, there, [rung.tokens for rung in there], colour, legendgroup=name))
    return _figure(traces, "training tokens D", found.metric)


def frontier(found: Scaling) -> Figure:
    """Loss against compute, with the law's least loss of each budget."""
    flops = [rung.flops for rung in found.rungs]
    best = found.frontier(np.geomspace(min(flops), 10 * max(flops), _LINE_POINTS).tolist())
    there = [rung for rung in found.rungs if rung.loss is not None]
    told = [f"C = {b.flops:.3g}<br>N_opt {b.parameters:,.0f}<br>D_opt {b.tokens:,.0f}<br>{b.loss:.4f}" for b in best]
    line = _trace([b.flops for b in best], [b.loss for b in best], "best use of C", "lines",
                  line={"color": "#000000", "width": 2}, hoverinfo="text", hovertext=told)  # fmt: skip
    return _figure([line, _dots(found, there, [rung.flops for rung in there], "#0072b2")], "C = 6 N D (FLOPs)",
                   found.metric)  # fmt: skip


def _dots(found: Scaling, rungs: Sequence[Rung], x: Sequence[float], colour: str, **more: Any) -> dict[str, Any]:
    told = [
        f"N = {rung.parameters:,.0f}, D = {rung.tokens:,.0f}"
        + ("" if rung.seed is None else f", seed {rung.seed}")
        + f"<br>{rung.loss:.4f}, the law {found.fit.law.loss(rung.parameters, rung.tokens):.4f}"
        for rung in rungs
    ]
    symbols = ["circle-open" if rung.held_out else "circle" for rung in rungs]
    return _trace(x, [rung.loss for rung in rungs], "runs", "markers", hoverinfo="text", hovertext=told,
                  marker={"color": colour, "size": 8, "symbol": symbols}, showlegend=False, **more)  # fmt: skip


def _trace(x: Any, y: Any, name: str, mode: str, **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": np.asarray(x, float).tolist(), "y": np.asarray(y, float).tolist(), "name": name,
            "mode": mode, **more}  # fmt: skip


def _figure(traces: list[Any], x: str, y: str) -> Figure:
    """Both axes are logarithmic."""
    axes = {
        f"{which}axis": {"type": "log", "title": {"text": html.escape(title)}, "gridcolor": "#eeeeee"}
        for which, title in (("x", x), ("y", y))
    }
    plain = {"height": 430, "margin": {"l": 60, "r": 20, "t": 24, "b": 50}, "hovermode": "closest",
             "plot_bgcolor": "white", "paper_bgcolor": "white", "font": {"size": 12}}  # fmt: skip
    return {"data": traces, "layout": {**plain, **axes}}
