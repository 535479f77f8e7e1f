"""Papers whose claims are measured: make the skeleton of a new one. `lmlab reproduce` measures them.

lmlab papers new my_paper            # experiments/papers/my_paper, to be filled in
lmlab reproduce my_paper --verify
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.cli.actions import add_action
from lmlab.cli.actions import run as run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's sub-commands."""
    chosen = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    new = add_action(chosen, "new", "make the skeleton of a paper", _new)
    new.add_argument("name", metavar="NAME", help="of the folder: small letters, digits and underscores")
    new.add_argument("--papers", metavar="DIR", help="where papers are (default: experiments/papers)")


def _new(args: argparse.Namespace) -> None:
    from lmlab.papers.claims import papers_folder
    from lmlab.papers.skeleton import new_paper

    here = Path("experiments") / "papers"
    folder = Path(args.papers) if args.papers is not None else papers_folder(None) if not here.is_dir() else here
    for path in new_paper(folder, args.name):
        print(path)
    print(f"Fill them in, then: lmlab reproduce {args.name} --papers {folder}")
