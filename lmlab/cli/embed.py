"""Make vectors of texts with a run's model: compare them, find the nearest lines of a file, or save them.

lmlab embed runs/simcse 'a cold day' 'it is freezing'           # the cosine of every two
lmlab embed runs/simcse 'a cold day' --among corpus.txt --count 3
lmlab embed runs/simcse --file corpus.txt --out vectors.npy     # (texts, width), float32

The vector is what `classification` and `contrastive` learn from: of a model with a pooler its own, else the mean of an
encoder's states, or the last state of a model that reads from left to right. Encoders of sentences that were trained
without a pooler (Sentence-BERT, MiniLM) want --pooling mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lmlab.cli.table import print_heading, print_table
from lmlab.cli.texts import add_texts, lines_of, texts_of
from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.text_vectors import text_vectors
from lmlab.evaluation.word_table import unit
from lmlab.generation.saved import SavedRun
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_texts(parser, "read")
    parser.add_argument("--among", metavar="FILE", help="show the nearest lines of this file ('-': standard input)")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="of --among: lines to show (default: 10)")
    parser.add_argument("--out", metavar="FILE.npy", help="write the vectors to this file instead")
    parser.add_argument("--pooling", choices=("own", "mean"), default="own", help="what is made of a text's states: "
                        "the model's own vector (default), or their mean")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints cosines, or writes the vectors."""
    if args.count < 1:
        raise ConfigError(f"--count {args.count}: it must be at least 1.")
    if args.among and args.out:
        raise ConfigError("--among shows cosines and --out writes vectors: choose one of them.")
    texts = texts_of(args, "to read")
    others = lines_of(args.among, "--among") if args.among else []
    if args.among and not others:
        raise DataError(f"--among {args.among}: there is no line in it.")
    if len(texts) == 1 and not (others or args.out):
        raise ConfigError(
            "one text has nothing to be compared with: give another one, --among FILE, or --out FILE.npy."
        )
    use_compilation_cache()
    saved = SavedRun(args.run)
    vectors = text_vectors(saved.program, saved.params(args.step), [*texts, *others], args.pooling)
    if args.out:
        _write(vectors, Path(args.out))
    elif others:
        _show_nearest(texts, others, vectors, args.count)
    else:
        _show_all(texts, vectors)
    return 0


def _write(vectors: np.ndarray, path: Path) -> None:
    try:
        with path.open("wb") as file:
            np.save(file, vectors)
    except OSError as error:
        raise DataError(f"--out {path}: {error.strerror}.") from None
    print(f"{vectors.shape[0]} vectors of {vectors.shape[1]} numbers written to {path}")


def _show_nearest(texts: list[str], others: list[str], vectors: np.ndarray, count: int) -> None:
    """For each text, the lines of greatest cosine."""
    directions = unit(vectors)
    for text, direction in zip(texts, directions, strict=False):
        cosines = directions[len(texts) :] @ direction
        print_heading(text)
        best = np.argsort(-cosines, kind="stable")[:count]
        print_table([[f"  {cosines[i]:.3f}", others[i]] for i in best])


def _show_all(texts: list[str], vectors: np.ndarray) -> None:
    """The cosine of every text with every other, by their numbers."""
    directions = unit(vectors)
    numbers = [str(i + 1) for i in range(len(texts))]
    rows = [
        [number, *(f"{cosine:.3f}" for cosine in row), text]
        for number, row, text in zip(numbers, directions @ directions.T, texts, strict=True)
    ]
    print_table(rows, ("", *numbers, "text"))
