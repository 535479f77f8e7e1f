"""The arguments of every command that takes a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.config import Resolved


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds FILE.gin..., --set and --plugin, with gin's own spellings --gin_file and --gin_bindings."""
    group = parser.add_argument_group("configuration")
    group.add_argument("files", nargs="*", metavar="FILE.gin", help="gin files; a later one wins over an earlier one")
    group.add_argument(
        "--gin_file", "--gin-file", dest="gin_files", action="append", default=[], metavar="FILE.gin",
        help="one more gin file, after the others",
    )  # fmt: skip
    group.add_argument(
        "--set", "--gin_bindings", "--gin-bindings", "--gin_param", dest="overrides", action="append", default=[],
        metavar="'gpt.layers = 6'",
        help="gin statements that win over the files, separated by ';'; may be repeated, a later one wins",
    )  # fmt: skip
    add_plugins(group)


def add_plugins(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --plugin."""
    parser.add_argument(
        "--plugin", dest="plugins", action="append", default=[], metavar="PATH.py|MODULE",
        help="a file or module with components of your own; may be repeated",
    )  # fmt: skip


def resolve_arguments(args: argparse.Namespace, root: str = "experiment", parts: Sequence[str] = ()) -> Resolved:
    """The configuration that the arguments describe, or these parts of it.

    Raises:
      ConfigError: nothing is given, or the configuration cannot be run as written.
    """
    files = [*args.files, *args.gin_files]
    if not files and not args.overrides:
        near = sorted(str(path) for path in Path("experiments").glob("*.gin"))
        there = f"\n  here are: {', '.join(near)}" if near else ""
        raise ConfigError(f"no configuration is given. Name a gin file.{there}")
    from lmlab.config import resolve

    return resolve(files, args.overrides, args.plugins, root, parts)
