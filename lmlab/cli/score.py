"""Say how probable texts are under a run's model, and rank what another system proposes (n-best lists).

lmlab score runs/quickstart 'def main():' 'def niam():'
lmlab score runs/quickstart --file candidates.txt --best 1          # a line for each text
lmlab score runs/scan 'I_JUMP I_JUMP' --source 'jump twice'         # an encoder-decoder

A text is a document of its own: it stands behind the end of the one before it, and its own end counts (but see --open).
"""

from __future__ import annotations

import argparse

from lmlab.cli.table import print_table
from lmlab.cli.texts import add_texts, texts_of
from lmlab.errors import ConfigError
from lmlab.evaluation.text_scores import score_texts
from lmlab.generation.saved import SavedRun
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_texts(parser, "scored")
    parser.add_argument("--source", help="an encoder-decoder's source, of which the texts are targets")
    parser.add_argument("--open", action="store_true", help="texts may go on: their end is not predicted")
    parser.add_argument("--best", type=int, metavar="N", help="only the N most probable ones, the best first")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints a line for each text."""
    if args.best is not None and args.best < 1:
        raise ConfigError(f"--best {args.best}: it must be at least 1.")
    texts = texts_of(args, "to score")
    use_compilation_cache()
    saved = SavedRun(args.run)
    scores = score_texts(saved.program, saved.params(args.step), texts, source=args.source, whole=not args.open)
    found = list(zip(texts, scores, strict=True))
    if args.best is not None:
        found = sorted(found, key=lambda pair: pair[1].nats)[: args.best]
    rows = [
        [f"{score.nats:.3f}", str(score.tokens), f"{score.nats / max(score.tokens, 1):.4f}", text]
        for text, score in found
    ]
    print_table(rows, ("nats", "tokens", "nats/token", "text"))
    return 0
