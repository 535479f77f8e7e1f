"""Commands that are several: `lmlab data fetch`, `lmlab tokenizer train`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lmlab import registry
from lmlab.cli.configuration import add_plugins


def add_action(
    chosen: Any, name: str, summary: str, act: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """Adds one of them, with --plugin, to what `add_subparsers` gave; `run` then calls `act`."""
    parser: argparse.ArgumentParser = chosen.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(act=act)
    add_plugins(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Loads the plug-ins and does what was chosen."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    args.act(args)
    return 0
