"""A report as text: for a terminal, and as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence

from lmlab.sweeps.report import Report, Variant
from lmlab.sweeps.statistics import Interval, Mean

Rows = list[list[str]]

_DASH = "–"


def header(report: Report) -> list[str]:
    """The names of the columns of `rows`."""
    return [
        "variant",
        "seeds",
        report.metric,
        "difference",
        "bootstrap",
        "p (Holm)",
        "effect",
        "s/trial",
        "tokens",
        "not finished",
    ]


def rows(report: Report) -> Rows:
    """A row for each variant, best first, as text."""
    return [_row(report, variant) for variant in report.variants]


MAIN = ("variant", "seeds", "metric", "difference", "p (Holm)", "not finished")
"""The columns that a table of little room has."""


def columns(report: Report, wanted: Sequence[str]) -> tuple[Rows, list[str]]:
    """Some columns of `rows`, and their names; of those that say nothing only the first.

    The metric's is called `metric` here, and is headed by its name without the split.
    """
    head, found = header(report), rows(report)
    head[2] = "metric"
    said = [head.index(name) for name in wanted]
    said = [k for k in said if k == 0 or any(row[k] not in ("", _DASH) for row in found)]
    head[2] = report.metric.split("/", 1)[-1]
    return [[row[k] for k in said] for row in found], [head[k] for k in said]


def failures(report: Report) -> Rows:
    """A row for each trial that was not finished and is not at work: id, variant, seed, status and why."""
    found = []
    for variant in report.variants:
        for trial in variant.trials:
            if trial.failed or trial.status in ("interrupted", "left", "pruned"):
                found.append([trial.id, variant.label, str(trial.seed), trial.status, trial.message or ""])
    return found


def changes(report: Report) -> Rows:
    """A row for each value in which a variant's configuration differs from the baseline's."""
    return [[variant.label, *change] for variant in report.variants for change in variant.changes]


def effects(report: Report) -> Rows:
    """A row for each value of each axis: axis, value, mean over everything else, over what."""
    found = []
    for effect in report.effects:
        for level in effect.levels:
            over = (
                f"{effect.contexts} × {level.mean.count} seeds"
                if effect.contexts
                else f"{level.mean.count} trials, unlike"
            )
            found.append([effect.axis, level.value, mean_text(level.mean), over])
    return found


def summary(report: Report) -> str:
    """How the trials stand, on one line."""
    counts = ", ".join(f"{count} {status}" for status, count in report.results.counts.items()) or "none"
    return f"{report.results.name}: {len(report.results.trials)} trials ({counts})"


def markdown(report: Report) -> str:
    """The report as Markdown, in tables as GitHub writes them."""
    parts = [f"**{_md(summary(report))}**", _md_table(header(report), rows(report))]
    for title, head, found in _others(report):
        parts += [f"**{title}**", _md_table(head, found)] if found else []
    notes = "\n".join(f"- {_md(note)}" for note in [*report.notes, *report.side_notes])
    return "\n\n".join([*parts, notes]) + "\n"


def latex(report: Report) -> str:
    """The main columns as LaTeX, for a document with `\\usepackage{booktabs}`; the notes are the caption."""
    found, head = columns(report, MAIN)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(map(_tex, head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex, row)) + r" \\" for row in found),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_tex(' '.join([summary(report) + '.', *report.notes]))}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(report: Report) -> str:
    """Every trial on a row: what it is, how it went, what it cost, and every number that it ended with."""
    results = report.results
    metrics = sorted({name for trial in results.trials for name in trial.final})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ("id", "status", "message", "seed", "seconds", "tokens", "tokens_per_second", "parameters")
    writer.writerow([*facts, *results.axes, *metrics])
    for trial in results.trials:
        tokens = round(trial.tokens) if trial.records else None
        known = (
            trial.id,
            trial.status,
            trial.message,
            trial.seed,
            trial.seconds,
            tokens,
            trial.tokens_per_second,
            trial.parameters,
        )
        writer.writerow([
            *known, *(trial.settings.get(axis) for axis in results.axes), *(trial.final.get(name) for name in metrics),
        ])  # fmt: skip
    return text.getvalue()


def mean_text(mean: Mean | None) -> str:
    """A mean with half its interval's width, to two digits of that: `3.412 ± 0.021`."""
    if mean is None:
        return _DASH
    margin = mean.margin
    if margin is None:
        return f"{mean.value:.5g}"
    digits = _digits(margin)
    return f"{mean.value:.{digits}f} ± {margin:.{digits}f}"


def interval_text(interval: Interval | None, digits: int) -> str:
    """An interval in brackets; nothing for none."""
    return "" if interval is None else f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def difference_text(variant: Variant) -> str:
    """A variant's difference from the baseline with its t interval: `-0.113 [-0.140, -0.086]`."""
    found = variant.difference
    if found is None:
        return _DASH
    margin = found.mean.margin
    if margin is None:
        return f"{found.mean.value:+.4g}" if found.mean.value else "0"
    digits = _digits(margin)
    return f"{found.mean.value:+.{digits}f} {interval_text(found.mean.interval, digits)}"


def bootstrap_text(variant: Variant) -> str:
    """The bootstrap interval of that difference."""
    found = variant.difference
    if found is None or found.bootstrap is None or found.mean.margin is None:
        return _DASH
    return interval_text(found.bootstrap, _digits(found.mean.margin))


def p_text(p: float | None) -> str:
    """A p value, to two digits."""
    if p is None:
        return _DASH
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"


def unfinished_text(variant: Variant) -> str:
    """How many trials have no result, by status: `1 nan, 2 pending`."""
    return ", ".join(f"{count} {status}" for status, count in variant.unfinished.items())


def _row(report: Report, variant: Variant) -> list[str]:
    found = variant.difference
    effect = found.effect if found else None
    return [
        variant.label,
        f"{len(variant.values)}/{len(variant.trials)}",
        mean_text(variant.mean),
        "baseline" if variant is report.baseline else difference_text(variant),
        bootstrap_text(variant),
        p_text(found.holm if found else None),
        _DASH if effect is None else f"{effect:+.2g}",
        _DASH if variant.seconds is None else f"{variant.seconds:.1f}",
        _DASH if variant.tokens is None else f"{variant.tokens:,.0f}",
        unfinished_text(variant),
    ]


def _others(report: Report) -> Iterable[tuple[str, Sequence[str], Rows]]:
    yield "Main effects", ("axis", "value", report.metric, "over"), effects(report)
    yield "Not finished", ("trial", "variant", "seed", "status", "why"), failures(report)
    yield "Changes from the baseline", ("variant", "what", "baseline", "variant"), changes(report)


def _digits(margin: float) -> int:
    """Decimals that show two digits of `margin`."""
    return min(12, max(0, 1 - math.floor(math.log10(margin)))) if margin > 0 else 4


def _md_table(head: Sequence[str], found: Rows) -> str:
    lines = [head, ["---"] * len(head), *found]
    return "\n".join("| " + " | ".join(cell if cell == "---" else _md(cell) for cell in line) + " |" for line in lines)


def _md(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*<>|\[\]#~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "×": r"$\times$", "–": "--", "→": r"$\to$", '"': r"\char34{}", "|": r"\textbar{}",
}  # fmt: skip


def _tex(text: str) -> str:
    """Text that LaTeX prints as it is; a minus before a number is one."""
    escaped = "".join(_TEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"(?<![\w.-])([-+])(?=\d)", r"$\1$", escaped)


FORMATS: dict[str, Callable[[Report], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}
