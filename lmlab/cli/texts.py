"""Texts on the command line: as words of it, or a text a line in a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lmlab.errors import ConfigError, DataError


def add_texts(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds TEXT and --file; `what` is done with each of them ("scored")."""
    parser.add_argument("texts", metavar="TEXT", nargs="*", help=f"what is {what}; for a dataset of ids, numbers with "
                        "spaces between")  # fmt: skip
    parser.add_argument("--file", metavar="FILE", help="a text a line, UTF-8 ('-': standard input)")


def texts_of(args: argparse.Namespace, what: str) -> list[str]:
    """The texts that were given, those of the file last.

    Raises:
      ConfigError: there is none; `what` they are for is in the message ("to score").
      DataError: the file cannot be read.
    """
    texts = [*args.texts, *(lines_of(args.file, "--file") if args.file else ())]
    if not texts:
        raise ConfigError(f"there is no text {what}: give one, or --file.")
    return texts


def lines_of(name: str, option: str) -> list[str]:
    """The lines of a file that are not empty; DataError, which names the option, where it cannot be read."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{option} {name}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{option} {name}: byte {error.start} is no UTF-8.") from None
    return [line for line in text.split("\n") if line.strip()]
