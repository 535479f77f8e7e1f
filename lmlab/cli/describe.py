"""Describe a component: its kind, where it is defined, its documentation, and its parameters with their defaults.

Of a dataset, also where it comes from, its splits, and what is known of it exactly: entropy, optimum, chance level.

lmlab describe gpt
lmlab describe dataset hmm_source
"""

from __future__ import annotations

import argparse
import inspect

from lmlab import registry
from lmlab.cli.configuration import add_plugins
from lmlab.cli.dataset_facts import print_facts
from lmlab.cli.list import kind_named
from lmlab.cli.table import print_heading, print_table
from lmlab.config import REQUIRED, parameters, spell, spell_value, supplied_parameters
from lmlab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("kind", nargs="?", help="its kind, which is not needed: names are unique over all kinds")
    parser.add_argument("name", help="the component, as `lmlab list` shows it")
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Prints what is known of the component."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    entry = _entry(args.kind, args.name)
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
    if entry.kind == "dataset":
        print_facts(entry, args.plugins)
    return 0


def _entry(kind: str | None, name: str) -> registry.Entry:
    if kind is not None:
        return registry.REGISTRIES[kind_named(kind)].entry(name)
    entry = registry.find(name)
    if entry is None:
        problem = f"no component named '{name}'."
        raise ConfigError(registry.unknown(problem, "component", name, registry.all_names()))
    return entry


def _default(default: object) -> str:
    return "(required)" if default is REQUIRED else spell_value(default)
