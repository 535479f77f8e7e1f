"""A report as one HTML page that needs nothing else: no server, no network, no file beside it.

The pictures are drawn by plotly.js, which stands in the page as plotly's Python package brings it. A content security
policy in the page forbids it to load anything.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence

from lmlab.data.optional import imported
from lmlab.sweeps import tables
from lmlab.sweeps.figures import Figure, Picture, pictures
from lmlab.sweeps.report import Report

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1180px; padding: 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p, ul { margin: .3rem 0 .8rem; } .note { color: #555; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; white-space: nowrap; vertical-align: top; }
thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
tbody tr:last-child td { border-bottom: 2px solid #222; }
tbody tr:hover { background: #f4f7fa; } tr.baseline { font-weight: 600; } tr.failed td { color: #c0392b; }
tr.running td, tr.pending td, tr.interrupted td { color: #777; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .6rem; font-size: .8rem; } summary { cursor: pointer; }
"""

_DRAW = """
for (const [place, figure] of JSON.parse(document.getElementById('figures').textContent).entries()) {
  Plotly.newPlot('figure' + place, figure.data, figure.layout,
                 {responsive: true, displaylogo: false, typesetMath: false, showSendToCloud: false});
}
"""


def page(report: Report) -> str:
    """The whole page.

    Raises:
      ConfigError: plotly is not installed.
    """
    drawn = pictures(report)
    return document(report.results.name, _body(report, drawn), [picture.figure for picture in drawn])


def document(title: str, body: Iterable[str], figures: Sequence[Figure]) -> str:
    """A page with the figures in its elements `figure0`, `figure1`, ...; `body` is HTML.

    Raises:
      ConfigError: plotly is not installed.
    """
    library = imported("plotly.offline", "an HTML report", "report").get_plotlyjs()
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        *body,
        f'<script type="application/json" id="figures">{_json(list(figures))}</script>',
        f"<script>{library}</script>\n<script>{_DRAW}</script>\n</body>\n</html>\n",
    ])  # fmt: skip


def _body(report: Report, drawn: Sequence[Picture]) -> Iterator[str]:
    yield f"<h1>{_text(report.results.name)}</h1>\n<p>{_text(tables.summary(report))}</p>"
    classes = [_class(report, place) for place in range(len(report.variants))]
    yield table(tables.header(report), tables.rows(report), classes)
    yield (
        "<ul class='note'>"
        + "".join(f"<li>{_text(note)}</li>" for note in [*report.notes, *report.side_notes])
        + "</ul>"
    )
    for place, picture in enumerate(drawn):
        yield f"<h2>{_text(picture.title)}</h2>\n<p class='note'>{_text(picture.note)}</p>"
        yield f"<div id='figure{place}'></div>"
    if failed := tables.failures(report):
        yield "<h2>Not finished</h2>" + table(("trial", "variant", "seed", "status", "why"), failed)
        yield from _tracebacks(report)
    if changed := tables.changes(report):
        yield "<h2>Changes from the baseline</h2>" + table(("variant", "what", "baseline", "variant"), changed)
    yield "<h2>Trials</h2>" + _trials(report)


def _class(report: Report, place: int) -> str:
    variant = report.variants[place]
    if variant is report.baseline:
        return "baseline"
    return "failed" if not variant.values and any(trial.failed for trial in variant.trials) else ""


def _tracebacks(report: Report) -> Iterator[str]:
    for trial in report.results.trials:
        if trial.traceback:
            yield f"<details><summary>{_text(trial.id)}</summary><pre>{_text(trial.traceback)}</pre></details>"


def _trials(report: Report) -> str:
    axes, found, classes = report.results.axes, [], []
    for trial in report.results.trials:
        value, speed = trial.final.get(report.metric), trial.tokens_per_second
        found.append([
            trial.id, trial.status, *(trial.settings.get(axis, "") for axis in axes), str(trial.seed),
            "" if value is None else f"{value:.6g}", "" if trial.seconds is None else f"{trial.seconds:.1f}",
            "" if speed is None else f"{speed:,.0f}", "" if trial.parameters is None else f"{trial.parameters:,}",
        ])  # fmt: skip
        classes.append("failed" if trial.failed else "" if trial.status == "ok" else trial.status)
    head = ("trial", "status", *axes, "seed", report.metric, "seconds", "tokens/s", "parameters")
    return table(head, found, classes)


def table(head: Sequence[str], rows: tables.Rows, classes: Sequence[str] = ()) -> str:
    """A table as HTML; `classes` of its rows, where they have some."""
    lines = [
        "<div class='wide'><table><thead><tr>",
        *(f"<th>{_text(cell)}</th>" for cell in head),
        "</tr></thead><tbody>",
    ]
    for place, row in enumerate(rows):
        kind = f" class='{classes[place]}'" if classes and classes[place] else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>")
    return "".join([*lines, "</tbody></table></div>"])


def _json(value: object) -> str:
    """JSON that may stand in a page: no text in it ends the script that holds it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _text(text: str) -> str:
    return html.escape(text)
