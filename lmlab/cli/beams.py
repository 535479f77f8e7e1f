"""How a command is told to search with beams."""

from __future__ import annotations

import argparse

from lmlab.errors import ConfigError
from lmlab.generation.beam import BeamOptions


def add_beams(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Adds --beams and what goes with it; `purpose` ends the sentence "search with K beams ..."."""
    parser.add_argument("--beams", type=int, metavar="K", help=f"search with K beams {purpose}")
    parser.add_argument("--length-penalty", type=float, default=1.0, metavar="A", help="of --beams: rank by log p / "
                        "length^A (default: 1)")  # fmt: skip
    parser.add_argument("--groups", type=int, default=1, metavar="G", help="of --beams: G groups of K / G beams, each "
                        "of which avoids what the ones before it choose (default: 1)")  # fmt: skip
    parser.add_argument("--diversity", type=float, metavar="D", help="of --groups: the nats that a choice costs for "
                        "each beam that made it in an earlier group (default: 0.5)")  # fmt: skip


def beams_of(args: argparse.Namespace) -> BeamOptions | None:
    """How to search; None where it is not asked for.

    Raises:
      ConfigError: the numbers do not fit, or there is nothing that a diversity is of.
    """
    if args.beams is None:
        if args.groups != 1:
            raise ConfigError(f"--groups {args.groups} are of a beam search: add --beams K.")
        if args.diversity is not None:
            raise ConfigError("--diversity is between groups of beams: add --beams K --groups G.")
        return None
    if args.beams < 1:
        raise ConfigError(f"--beams {args.beams}: there must be at least 1.")
    if args.diversity is None:
        return BeamOptions(args.beams, args.length_penalty, args.groups)
    if args.groups == 1:
        raise ConfigError("--diversity is between groups of beams: add --groups G.")
    return BeamOptions(args.beams, args.length_penalty, args.groups, args.diversity)
