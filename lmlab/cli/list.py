"""List components: their names by kind, each with the first line of its documentation.

lmlab list
lmlab list models
"""

from __future__ import annotations

import argparse

from lmlab import registry
from lmlab.cli.configuration import add_plugins
from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(registry.KIND_OF_PLURAL)}")
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the names; imports no component, and so no jax."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    if args.kind:
        print_table(_rows(kind_named(args.kind)))
        return 0
    shown = [(plural, _rows(kind)) for plural, kind in registry.KIND_OF_PLURAL.items()]
    for index, (plural, rows) in enumerate((plural, rows) for plural, rows in shown if rows):
        print_heading(f"\n{plural}" if index else plural)
        print_table([[f"  {name}", summary] for name, summary in rows])
    return 0


def _rows(kind: str) -> list[list[str]]:
    entries = (registry.REGISTRIES[kind].entry(name) for name in registry.REGISTRIES[kind].names())
    return [[entry.name, entry.summary()] for entry in entries]


def kind_named(word: str) -> str:
    """The kind that a word of the command line names, in the singular or the plural; ConfigError if none."""
    known = {**registry.KIND_OF_PLURAL, **{kind: kind for kind in registry.REGISTRIES}}
    if word not in known:
        near = registry.near_names(word, list(known))
        raise ConfigError(f"no kind of component named '{word}'.{near}\n  kinds: {', '.join(registry.KIND_OF_PLURAL)}")
    return known[word]
