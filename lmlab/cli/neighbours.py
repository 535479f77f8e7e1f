"""Show the words whose vectors are nearest to a word's, by the cosine, in a run of any model that has a vector per id.

lmlab neighbours runs/brown march king
lmlab neighbours runs/brown march --table context/embedding     # what stands around such words

A word that the tokenizer makes several ids of has the mean of their vectors.
"""

from __future__ import annotations

import argparse

from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError
from lmlab.evaluation.word_table import note_pieces, open_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("words", metavar="WORD", nargs="+", help="a word; for a dataset of ids, a number")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `lmlab analogy` has, too."""
    parser.add_argument("--count", type=int, default=10, help="words to show (default: 10)")
    parser.add_argument(
        "--table", help="the parameter that holds the vectors (default: those of the ids that are read)"
    )
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def check_options(args: argparse.Namespace) -> None:
    """ConfigError for a count that is none."""
    if args.count < 1:
        raise ConfigError(f"--count {args.count}: it must be at least 1.")


def run(args: argparse.Namespace) -> int:
    """Prints a table for each word."""
    check_options(args)
    table = open_table(args.run, args.step, args.table)
    note_pieces(table, args.words)
    found = {word: table.nearest(table.vector(word), args.count, [word]) for word in args.words}
    for word, near in found.items():
        print_heading(word)
        print_table([[f"  {name}", f"{cosine:.3f}"] for name, cosine in near])
    return 0
