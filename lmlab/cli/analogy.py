"""Answer "A is to B as C is to ...?" with a run's word vectors: the words nearest to B - A + C, of vectors of length 1.

lmlab analogy runs/brown man king woman

The three words themselves are left out (Mikolov, Yih & Zweig 2013; called 3CosAdd by Levy & Goldberg 2014).
"""

from __future__ import annotations

import argparse

from lmlab.cli.neighbours import add_options, check_options
from lmlab.cli.table import print_heading, print_table
from lmlab.evaluation.word_table import note_pieces, open_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    for name, what in (("a", "a word"), ("b", "what belongs to it"), ("c", "the word of which the same is asked")):
        parser.add_argument(name, metavar=name.upper(), help=what)
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the answers, the nearest first."""
    check_options(args)
    table = open_table(args.run, args.step, args.table)
    words = [args.a, args.b, args.c]
    note_pieces(table, words)
    a, b, c = map(table.vector, words)
    found = table.nearest(b - a + c, args.count, words)
    print_heading(f"{args.a} : {args.b} = {args.c} : ...")
    print_table([[f"  {name}", f"{cosine:.3f}"] for name, cosine in found])
    return 0
