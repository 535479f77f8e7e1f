"""Measure the claims of a paper, and say of each whether the published number was met.

lmlab reproduce hmm_source                       # what fits into ten minutes; the same command again goes on
lmlab reproduce scan --claim jump --budget full --seeds 5
lmlab reproduce --all --verify                   # judge what is kept, train nothing
lmlab reproduce --list                           # all papers, with their verdicts and how old these are

What does not fit into the budget is looked at early where the paper says where a right run then stands, else left. What
was measured is kept in experiments/papers/NAME/results/. The exit code is 0 where everything that was to be measured is
met, or on course. `lmlab papers new NAME` begins a paper of your own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.cli.sweep_table import Progress
    from lmlab.papers.budget import Selection
    from lmlab.papers.claims import Band, Claim, Device, Paper
    from lmlab.papers.judging import Verdict
    from lmlab.papers.reproducing import Reproduction
    from lmlab.sweeps.folder import SweepFolder

RUNS = Path("runs") / "papers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a paper")
    parser.add_argument("--all", action="store_true", help="all papers, each with the budget")
    parser.add_argument("--list", action="store_true", help="show all papers and their verdicts")
    parser.add_argument("--claim", action="append", default=[], metavar="ID", help="only this claim; may be repeated")
    parser.add_argument("--budget", default="10m", metavar="TIME", help="for training, by the paper's estimates: 90s, "
                        "10m, 2h or full (default: 10m)")  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help="so many seeds (default: as the paper's file says)")
    parser.add_argument("--verify", action="store_true", help="judge what is kept; measure nothing")
    parser.add_argument("--again", action="store_true", help="measure what is kept already, too")
    parser.add_argument("--papers", metavar="DIR", help="where papers are (default: the repository's, else "
                        "experiments/papers)")  # fmt: skip
    parser.add_argument("--runs", metavar="DIR", default=str(RUNS), help=f"where they are trained (default: {RUNS})")


def run(args: argparse.Namespace) -> int:
    """Measures and judges; 1 where a claim failed, is off, or could not be measured."""
    from lmlab.papers.budget import minutes_of
    from lmlab.papers.claims import paper_names, papers_folder, read_paper
    from lmlab.papers.reproducing import Reproduction

    _check(args)
    budget = minutes_of(args.budget)
    folder = papers_folder(args.papers)
    names = paper_names(folder) if args.all or args.list else [args.name]
    made = [Reproduction(read_paper(folder, name), Path(args.runs), args.seeds, args.again) for name in names]
    if args.list:
        return _list(made)
    bad = False
    for number, one in enumerate(made):
        if number:
            print()
        claims = [one.paper.claim(claim) for claim in args.claim] or list(one.paper.claims)
        chosen = None if args.verify else _measure(one, claims, budget)
        verdicts = [_said(one, claim, chosen) for claim in claims]
        _show(one.paper, claims, verdicts)
        bad = bad or any(verdict.bad for verdict in verdicts)
    return int(bad)


def _check(args: argparse.Namespace) -> None:
    """ConfigError for what does not go together."""
    if sum((args.name is not None, args.all, args.list)) != 1:
        raise ConfigError("name one paper, or give --all or --list.   (lmlab reproduce --list shows them)")
    if args.claim and args.name is None:
        raise ConfigError("--claim is of one paper: name it.")
    if args.seeds is not None and args.seeds < 1:
        raise ConfigError(f"--seeds {args.seeds}: it must be at least 1.")
    if args.verify and args.again:
        raise ConfigError("--verify measures nothing: leave --again out.")


def _measure(one: Reproduction, claims: Sequence[Claim], budget: float) -> Selection:
    """Runs and calls what fits, and keeps what came of it."""
    from lmlab.training.compilation_cache import use_compilation_cache

    device = _device()
    chosen = one.select(claims, device, budget)
    if chosen.checks or chosen.parts:
        _tell(f"{one.paper.name}: {len(chosen.checks)} checks and {len(chosen.parts)} runs, about "
              f"{_minutes(chosen.minutes)} by the paper's estimates")  # fmt: skip
        use_compilation_cache()
    one.call_checks((claim for claim in claims if claim.id in chosen.checks), _tell)
    with ExitStack() as closing:
        closing.callback(one.collect, claims)
        one.train(chosen.parts, lambda folder: closing.enter_context(contextlib.closing(_progress(folder))))
    return chosen


def _progress(folder: SweepFolder) -> Progress:
    from lmlab.cli.sweep_table import Progress

    return Progress(folder, 1, time.monotonic)


def _device() -> Device:
    import jax

    return "two_cores" if jax.default_backend() == "cpu" else "h100"


def _said(one: Reproduction, claim: Claim, chosen: Selection | None) -> Verdict:
    """A claim's verdict, with the reason where it was to be measured now and was not."""
    from dataclasses import replace

    found = one.verdict(claim)
    if chosen is None or found.kind != "not run":
        return found
    if claim.id in chosen.too_long:
        return replace(found, note=f"about {_minutes(chosen.too_long[claim.id])}: --budget full")
    return replace(found, note=one.note(claim) or found.note, asked=True)


def _show(paper: Paper, claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> None:
    print_heading(f"{paper.name}: {paper.title} ({paper.source})")
    rows = [_row(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True)]
    print_table(rows, ("claim", "published", "ours", "seeds", "band", "verdict"), True)
    for claim, verdict in zip(claims, verdicts, strict=True):
        if verdict.note:
            print(f"{claim.id}: {verdict.note}")


def _row(claim: Claim, verdict: Verdict) -> list[str]:
    band = claim.band_at(verdict.share) or claim.band
    published = "–" if claim.published is None else f"{_number(claim.published)} {claim.unit}".strip()
    seeds = f"{verdict.seeds}" if claim.runs and verdict.seeds else "–"
    at = "" if verdict.share == 1 else f" ({verdict.share:.0%} of the steps)"
    return [claim.id, published, _ours(claim, verdict), seeds, _band(band), f"{verdict.kind}{at}"]


def _ours(claim: Claim, verdict: Verdict) -> str:
    if verdict.value is None:
        return "–"
    if verdict.interval is None:
        return _number(verdict.value)
    low, high = verdict.interval
    if claim.over == "mean":
        return f"{_number(verdict.value)} ± {(high - low) / 2:.2g}"
    return f"{_number(verdict.value)} ({claim.over.replace('_', ' ')} of {_number(low)} .. {_number(high)})"


def _band(band: Band) -> str:
    if band.low == -float("inf"):
        return f"<= {_number(band.high)}"
    if band.high == float("inf"):
        return f">= {_number(band.low)}"
    return _number(band.low) if band.low == band.high else f"{_number(band.low)} .. {_number(band.high)}"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.5g}"


def _list(made: Sequence[Reproduction]) -> int:
    """A row for each paper."""
    rows = []
    for one in made:
        verdicts = [one.verdict(claim) for claim in one.paper.claims]
        counts = Counter(verdict.kind for verdict in verdicts)
        times = [verdict.measured for verdict in verdicts if verdict.measured is not None]
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        rows.append([one.paper.name, str(len(verdicts)), told, _age(max(times)) if times else "–", one.paper.title])
    print_table(rows, ("paper", "claims", "verdicts", "newest", "title"))
    return 0


def _age(when: datetime) -> str:
    hours = (datetime.now(UTC) - when).total_seconds() / 3600
    return (
        f"{hours * 60:.0f} min ago"
        if hours < 1
        else f"{hours:.0f} h ago"
        if hours < 48
        else f"{hours / 24:.0f} days ago"
    )


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
