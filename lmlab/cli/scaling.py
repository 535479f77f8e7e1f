"""Fit a scaling law, L(N, D) = E + A / N^alpha + B / D^beta, to a sweep over compute or to a table.

lmlab scaling runs/ladder                                   # parameters with intervals, the frontier, held-out sizes
lmlab scaling runs/ladder --parameters non-embedding --budget 1e15 --budget 1e18
lmlab scaling runs/ladder --format html                     # one page, to be opened without a server
lmlab scaling points.csv --held-out 1                       # columns: parameters, loss, and tokens or flops

Sizes that are held out (ladder.held_out, --held-out) are foretold by a law that has not seen them: before they are
trained, and afterwards with the error.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError, LmlabError

if TYPE_CHECKING:
    from lmlab.sweeps.results import Trial
    from lmlab.sweeps.scaling import Scaling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("sweep", metavar="SWEEP", help="the folder of a sweep, or a CSV file of points")
    parser.add_argument("--metric", help="the loss at the end of each trial (default: valid/nats_per_token)")
    parser.add_argument("--parameters", choices=("all", "non-embedding"), default="all",
                        help="which of them N counts (default: all)")  # fmt: skip
    parser.add_argument("--held-out", type=int, metavar="K", help="fit without the K largest sizes, and foretell them "
                        "(default: as the ladder says)")  # fmt: skip
    parser.add_argument("--best", action="store_true", help="where the sweep has other axes: one law, of the setting "
                        "of least loss at each rung (default: a law for each setting)")  # fmt: skip
    parser.add_argument("--budget", type=float, action="append", default=[], metavar="FLOPS",
                        help="say the best size and tokens for this many floating-point operations; may be "
                        "repeated")  # fmt: skip
    parser.add_argument("--resamples", type=int, default=200, metavar="N", help="of the bootstrap (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--format", choices=("terminal", "json", "html"), default="terminal",
                        help="(default: terminal)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="write there (default of json and html: scaling.json, "
                        "scaling.html in the sweep, or beside the table)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints the law, or writes it."""
    _check(args)
    found = _found(args)
    if args.format == "terminal":
        for one in found:
            _show(one, args.budget)
        return 0
    from lmlab.sweeps.scaling import to_json
    from lmlab.training.files import replace_text

    source = Path(args.sweep)
    name = Path(args.out or (source if source.is_dir() else source.parent) / f"scaling.{args.format}")
    if name.is_dir():
        raise ConfigError(f"--out {name}: this is a folder. Name a file in it.")
    if args.format == "html":
        from lmlab.sweeps.scaling_page import page

        text = page(found, args.budget)
    else:
        text = json.dumps([to_json(one, args.budget) for one in found], indent=1, allow_nan=False) + "\n"
    replace_text(name, text)
    print(f"written to {name}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.format == "terminal" and args.out is not None:
        raise ConfigError("--out is for a file: choose its --format, json or html.")
    for name, least in (("held_out", 0), ("resamples", 0), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: it must be at least {least}.")
    for budget in args.budget:
        if not (math.isfinite(budget) and budget > 0):
            raise ConfigError(f"--budget {budget:g}: it must be a positive number.")


def _found(args: argparse.Namespace) -> list[Scaling]:
    from lmlab.sweeps.scaling import of_points, of_sweep

    options: dict[str, int] = {"resamples": args.resamples, "seed": args.seed}
    if Path(args.sweep).is_dir():
        from lmlab.sweeps.results import read_results

        return of_sweep(
            read_results(args.sweep), metric=args.metric, counted=args.parameters, held_out=args.held_out,
            best=args.best, sizes_of=_sizes_of, **options,
        )  # fmt: skip
    if args.metric or args.best or args.parameters != "all":
        raise ConfigError("--metric, --best and --parameters are for sweeps; a table has one loss and one N.")
    from lmlab.sweeps.scaling_points import read_points

    return [of_points(Path(args.sweep).stem, read_points(args.sweep), args.held_out or 0, **options)]


def _sizes_of(trial: Trial) -> Mapping[str, int] | None:
    """The numbers in the parameters of a trial that has none yet, by its configuration; None where it cannot be had."""
    from lmlab.training.program import Program
    from lmlab.training.run_folder import RunFolder

    try:
        shapes = Program(RunFolder(trial.folder).resolved()).model.shapes
    except LmlabError:  # such as of a corpus that is not here: the trial's own record says so
        return None
    return {path: shape.size for path, shape in shapes.items()}


def _show(found: Scaling, budgets: list[float]) -> None:
    """Tables for a person."""
    from lmlab.sweeps.scaling_text import frontier_rows, law_rows, run_rows, summary

    print_heading(summary(found))
    for rows, head in (law_rows(found), run_rows(found), frontier_rows(found, budgets)):
        print()
        print_table(rows, head, numbers=True)
    print()
    for note in found.notes:
        print(note)
