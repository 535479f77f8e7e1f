"""Show what a sweep has found: its variants, best first, with their spread over seeds, each beside the baseline.

lmlab report sweeps/rates
lmlab report sweeps/rates --metric valid/bits_per_byte --baseline 'adamw.learning_rate = 0.001'
lmlab report sweeps/rates --format html --out rates.html        # one page, to be opened without a server
lmlab report sweeps/rates --format latex                        # or markdown; csv has a row for each trial

It may be asked while the sweep goes on: what is not there yet is shown as pending, what failed as failed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.sweeps.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("sweep", metavar="SWEEP", help="the folder of a sweep")
    parser.add_argument("--metric", help="what the trials are judged by: a number of the last evaluation, or train/N "
                        "of the last training record (default: valid/nats_per_token)")  # fmt: skip
    parser.add_argument(
        "--better", choices=("lower", "higher"), help="the metric's good direction (default: by its name)"
    )
    parser.add_argument("--baseline", action="append", default=[], metavar="'AXIS = VALUE'",
                        help="what the others are compared with, as gin writes it, several separated by ';'; may be "
                        "repeated (default: what the sweep names)")  # fmt: skip
    parser.add_argument("--format", choices=("terminal", "markdown", "latex", "csv", "html"), default="terminal",
                        help="(default: terminal)")  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", help="write there, not to the terminal; html: report.html in the sweep"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report, or writes it."""
    from lmlab.sweeps.report import make_report
    from lmlab.sweeps.results import read_results

    if args.format == "terminal" and args.out is not None:
        raise ConfigError("--out is for a file: choose its --format, markdown, latex, csv or html.")
    results = read_results(args.sweep)
    report = make_report(results, args.metric, _settings(args.baseline), args.better)
    if args.format == "terminal":
        _show(report)
        return 0
    text, name = _text(report, args.format), args.out
    if name is None and args.format == "html":
        name = str(Path(args.sweep) / "report.html")
    if name is None:
        print(text, end="")
        return 0
    if Path(name).is_dir():
        raise ConfigError(f"--out {name}: this is a folder. Name a file in it.")
    from lmlab.training.files import replace_text

    replace_text(Path(name), text)
    print(f"written to {name}")
    return 0


def _text(report: Report, form: str) -> str:
    if form == "html":
        from lmlab.sweeps.page import page

        return page(report)
    from lmlab.sweeps.tables import FORMATS

    return FORMATS[form](report)


def _settings(given: list[str]) -> dict[str, str] | None:
    """What --baseline says, by axis; None where it is not given."""
    if not given:
        return None
    found = {}
    for statement in (part.strip() for text in given for part in text.split(";") if part.strip()):
        axis, equals, value = (part.strip() for part in statement.partition("="))
        if not (axis and equals and value):
            raise ConfigError(
                f"--baseline '{statement}': write it as 'AXIS = VALUE', like 'adamw.learning_rate = 0.001'."
            )
        found[axis] = value
    return found


def _show(report: Report) -> None:
    """Tables for a person, each only where it has something to say."""
    from lmlab.sweeps import tables

    print_heading(tables.summary(report))
    print_table(*tables.columns(report, tables.MAIN), True)
    rest, head = tables.columns(report, ("variant", "bootstrap", "effect", "s/trial", "tokens"))
    if len(head) > 1:
        print()
        print_heading("Bootstrap intervals, effect sizes (Hedges), costs")
        print_table(rest, head, numbers=True)
    if len(report.results.axes) > 1 and report.effects:
        print()
        print_heading("Main effects")
        print_table(tables.effects(report), ("axis", "value", report.metric, "over"))
    if failed := tables.failures(report):
        print()
        print_heading("Not finished")
        print_table(failed, ("trial", "variant", "seed", "status", "why"))
    if changed := tables.changes(report):
        print()
        print_heading("Changes from the baseline")
        print_table(changed, ("variant", "what", "baseline", "variant"))
    print()
    for note in [*report.notes, *report.side_notes]:
        print(note)
