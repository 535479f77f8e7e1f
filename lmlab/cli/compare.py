"""Compare two runs: configuration, the first step at which data or loss part, paired curves, and what they end with.

lmlab compare runs/a runs/b
lmlab compare runs/a runs/b --metric valid/bits_per_byte --tolerance 1e-5

Losses are equal where they are to the bit, unless --tolerance says how much of them may differ. Data is compared by the
fingerprints in the checkpoints and, where these differ, batch by batch as it is now.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lmlab.cli.diff import print_differences
from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.sweeps.two_runs import DataComparison, Point
    from lmlab.training.run import Run

ROWS = 12
"""Steps of a curve that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("a", metavar="A", help="a run folder")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--metric", help="of the evaluations, whose curves are shown beside the loss's (default: "
                        "valid/nats_per_token, or else the first that both have)")  # fmt: skip
    parser.add_argument("--tolerance", type=float, default=0.0, metavar="SHARE",
                        help="of a loss that may differ (default: 0, to the bit)")  # fmt: skip
    parser.add_argument("--batches", type=int, default=1000, metavar="N",
                        help="batches to look through where fingerprints differ (default: 1000)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints what the two have in common and where they part."""
    if not 0 <= args.tolerance < 1:
        raise ConfigError(f"--tolerance {args.tolerance:g}: give a share from 0 on and below 1, like 1e-5.")
    if args.batches < 0:
        raise ConfigError(f"--batches {args.batches}: give a number from 0 on.")
    from lmlab.sweeps.records import final_numbers, read_records
    from lmlab.sweeps.two_runs import compare_data, shared_points
    from lmlab.training.run import Run

    runs = Run(args.a), Run(args.b)
    records = [read_records(run.files.metrics) for run in runs]
    ends = [final_numbers(found) for found in records]
    metric = _metric(args.metric, *ends)  # before anything is printed
    print_table([[name, _standing(run)] for name, run in zip((args.a, args.b), runs, strict=True)])
    _heading("Configuration")
    print_differences(args.a, runs[0].resolved, args.b, runs[1].resolved)
    _heading("Data")
    _show_data(compare_data(*runs, args.batches))
    every = [run.resolved.spec.kwargs.get("log_every") for run in runs]
    for name in dict.fromkeys(["train/loss", *([metric] if metric else [])]):
        _heading(name)
        _show_curve(shared_points(records[0], records[1], name), args)
    _heading("At the end")
    _show_ends(args, *ends)
    if every[0] != every[1]:
        print(f"\nA training record is a mean over the steps since the one before; the runs have them every {every[0]} "
              f"and every {every[1]} steps, so that these numbers differ even where the runs do not.")  # fmt: skip
    return 0


def _heading(text: str) -> None:
    print()
    print_heading(text)


def _standing(run: Run) -> str:
    status = run.files.status()
    return f"{status.get('state', 'new')}, step {status.get('step', 0)} of {run.resolved.spec.kwargs.get('steps', '?')}"


def _show_data(found: DataComparison) -> None:
    if found.differences is None and found.problem is None:
        print("the same batch at every step (the same fingerprint)")
        return
    if found.differences is not None:
        print(f"the fingerprints differ:\n{found.differences}")
    if found.problem is not None:
        print(f"batches cannot be compared: {found.problem}")
    elif found.step is not None:
        print(f"batches differ from step {found.step} on (0 is the first), in {', '.join(found.arrays)}")
    else:
        print(f"no difference in the first {found.looked_at} batches")


def _metric(asked: str | None, a: Mapping[str, float], b: Mapping[str, float]) -> str | None:
    """The evaluation metric whose curves are shown."""
    from lmlab.sweeps.report import USUAL_METRIC
    from lmlab.sweeps.two_runs import shared_metric

    if asked is not None and not (asked in a and asked in b):
        shared = ", ".join(sorted(a.keys() & b.keys())) or "nothing"
        raise ConfigError(f"--metric {asked}: not both runs have it. Both end with: {shared}.")
    return asked or shared_metric(a, b, USUAL_METRIC)


def _show_ends(args: argparse.Namespace, a: Mapping[str, float], b: Mapping[str, float]) -> None:
    rows = [
        [name, _number(a.get(name)), _number(b.get(name)), _signed(a.get(name), b.get(name))]
        for name in dict.fromkeys([*a, *b])
    ]
    if rows:
        print_table(rows, ("", args.a, args.b, "B - A"))
    else:
        print("neither has recorded anything")


def _show_curve(points: list[Point], args: argparse.Namespace) -> None:
    """Where the two part, and a row for some of the steps that both recorded."""
    from lmlab.sweeps.two_runs import first_difference, thinned

    if not points:
        print("no step at which both recorded it")
        return
    first = first_difference(points, args.tolerance)
    to = "to the bit" if args.tolerance == 0 else f"within {args.tolerance:g} of it"
    if first is None:
        print(f"equal {to} at all {len(points)} steps that both recorded")
    else:
        before = f"equal {to} until step {points[points.index(first) - 1].step}, " if first != points[0] else ""
        print(f"{before}differs at step {first.step}: {first.a!r} and {first.b!r}")
    mean = sum(point.difference for point in points) / len(points)
    most = max(points, key=lambda point: abs(point.difference))
    print(f"B - A: mean {mean:+.4g}, largest {most.difference:+.4g} (step {most.step})")
    rows = [[str(p.step), f"{p.a:.6g}", f"{p.b:.6g}", f"{p.difference:+.4g}"] for p in thinned(points, ROWS)]
    print_table(rows, ("step", args.a, args.b, "B - A"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _signed(a: float | None, b: float | None) -> str:
    return "" if a is None or b is None else f"{b - a:+.4g}"
