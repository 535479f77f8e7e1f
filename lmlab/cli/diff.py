"""Compare two configurations: of run folders, of config.json files, or of gin files.

lmlab diff runs/a runs/b
lmlab diff runs/a experiments/quickstart.gin
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lmlab.cli.configuration import add_plugins
from lmlab.cli.table import print_table
from lmlab.config import ABSENT, Resolved, diff, resolve, spell_value
from lmlab.contracts import Spec, Value
from lmlab.errors import ConfigError, RunFolderError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("a", metavar="A", help="a run folder, its config.json, or a gin file")
    parser.add_argument("b", metavar="B", help="likewise")
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a row for each difference, with where each value comes from."""
    print_differences(args.a, _load(args.a, args.plugins), args.b, _load(args.b, args.plugins))
    return 0


def print_differences(name: str, a: Resolved, other: str, b: Resolved) -> None:
    """Prints how two configurations differ, each under its name."""
    found = diff(a.spec, b.spec)
    if not found:
        print(f"no difference: both are configuration {a.hash}")
        return
    rows = [[path, *_cell(a, path, left), *_cell(b, path, right)] for path, left, right in found]
    print_table(rows, ("", name, "from", other, "from"))
    if a.identity == b.identity:
        print(f"\nBoth learn the same (identity {a.identity}): they differ only in how the run is carried out.")


def _load(where: str, plugins: list[str]) -> Resolved:
    path = Path(where)
    if path.suffix == ".gin":
        return resolve([where], plugins=plugins)
    file = path / "config.json" if path.is_dir() else path
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "it has no config.json" if path.is_dir() else "it is not there"
        raise RunFolderError(f"{where} is no run folder: {what}. Give a run folder or a gin file.") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"cannot read {file}: {error}. Give a run folder or a gin file.") from None
    if not isinstance(saved, dict):
        raise ConfigError(f"{file} is not a saved configuration. Give a run folder or a gin file.")
    return Resolved.from_json(saved.get("resolved", saved))


def _cell(side: Resolved, path: str, value: Value) -> tuple[str, str]:
    if value is ABSENT:
        return repr(ABSENT), ""
    text = spell_value(value) if isinstance(value, Spec | tuple) else repr(value)
    return text, side.provenance.get(path, "")
