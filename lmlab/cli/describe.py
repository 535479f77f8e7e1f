"""Describe a component: its kind, where it is defined, its documentation, and its parameters with their defaults.

lmlab describe gpt
"""

from __future__ import annotations

import argparse
import inspect

from lmlab import registry
from lmlab.cli.configuration import add_plugins
from lmlab.cli.table import print_heading, print_table
from lmlab.config import REQUIRED, parameters, spell, spell_value, supplied_parameters
from lmlab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("name", help="the component, as `lmlab list` shows it")
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Prints what is known of the component."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    entry = registry.find(args.name)
    if entry is None:
        problem = f"no component named '{args.name}'."
        raise ConfigError(registry.unknown(problem, "component", args.name, registry.all_names()))
    known = parameters(entry)
    print_heading(f"{entry.name}: {entry.kind}, {entry.place}")
    print(f"\n{inspect.cleandoc(entry.doc)}\n")
    rows = [[f"{entry.name}.{p.name}", spell(p.annotation), _default(p.default)] for p in known.values()]
    if rows:
        print_table(rows, ("parameter", "type", "default"))
    else:
        print("It has no parameters.")
    if given := supplied_parameters(entry):
        print(f"\nGiven by the program: {', '.join(given)}")
    return 0


def _default(default: object) -> str:
    return "(required)" if default is REQUIRED else spell_value(default)
