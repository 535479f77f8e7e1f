"""Corpora: fetch them, list what is here, and look at the rows that a model is trained on.

lmlab data list
lmlab data fetch state_of_the_union brown
lmlab data show brown --seq-len 24
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmlab import registry
from lmlab.cli.configuration import add_plugins
from lmlab.cli.table import print_heading, print_table
from lmlab.data.archives import Archive, Origin, data_folder
from lmlab.data.fetching import fetch
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.contracts import Tokenizer
    from lmlab.data import Data
    from lmlab.data.features import Batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's sub-commands."""
    chosen = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    fetching = _action(chosen, "fetch", "bring corpora into the cache folder", _fetch)
    fetching.add_argument("names", nargs="+", metavar="NAME", help="a dataset, or an archive's file name")
    _action(chosen, "list", "show every dataset: whether its corpus is here, size, licence, source", _list)
    showing = _action(chosen, "show", "show training rows as a model sees them", _show)
    showing.add_argument("name", metavar="NAME", help="a dataset")
    showing.add_argument("--split", choices=("train", "valid", "test"), default="train", help="(default: train)")
    showing.add_argument("--count", type=int, default=1, help="rows to show (default: 1)")
    showing.add_argument("--seq-len", type=int, default=16, metavar="T", help="tokens of a row (default: 16)")
    showing.add_argument("--tokenizer", default="bytes", help="for datasets of text (default: bytes)")
    showing.add_argument("--packing", choices=("windows", "first_fit"), default="windows", help="(default: windows)")
    showing.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="'NAME.parameter = 1'",
        help="gin statements for the dataset, separated by ';'; may be repeated",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Does what was chosen."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    args.act(args)
    return 0


def _action(chosen: Any, name: str, summary: str, act: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = chosen.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(act=act)
    add_plugins(parser)
    return parser


def _fetch(args: argparse.Namespace) -> None:
    wanted = [_archives(name) for name in args.names]  # before anything is fetched: one may be misspelt
    for name, archives in zip(args.names, wanted, strict=True):
        if not archives:
            print(f"{name}: nothing to fetch")
    for archive in dict.fromkeys(archive for archives in wanted for archive in archives):
        fetch(archive, lambda line: print(line, flush=True))


def _archives(name: str) -> tuple[Archive, ...]:
    """The archives that a dataset needs, or the one of this file name."""
    found = {entry.name: origin.archives if origin else () for entry, origin in _origins()}
    known = found | {archive.name: (archive,) for archives in found.values() for archive in archives}
    if name not in known:
        problem = f"no dataset or archive named '{name}'."
        raise ConfigError(registry.unknown(problem, "dataset and archive", name, list(known)))
    return known[name]


def _origins() -> Iterator[tuple[registry.Entry, Origin | None]]:
    """Every dataset with its origin; imports only those that have one, and so no arrays."""
    for name in registry.datasets.names():
        entry = registry.datasets.entry(name)
        yield entry, entry.attribute("origin")


def _list(args: argparse.Namespace) -> None:
    rows = [_row(entry, origin) for entry, origin in _origins()]
    print_table(rows, ("dataset", "corpus", "text", "licence", "source"))
    print_heading(f"\nArchives are kept in {data_folder()} (LMLAB_DATA).")


def _row(entry: registry.Entry, origin: Origin | None) -> list[str]:
    if origin is None:
        return [entry.name, "-", "-", "-", entry.summary()]
    missing = sum(archive.size for archive in origin.archives if not archive.is_here())
    corpus = f"to fetch, {missing / 1e6:.1f} MB" if missing else "here"
    return [entry.name, corpus, origin.size, origin.licence, origin.source]


def _show(args: argparse.Namespace) -> None:
    for option, value in (("--count", args.count), ("--seq-len", args.seq_len)):
        if value < 1:
            raise ConfigError(f"{option} {value}: it must be at least 1.")
    data = _opened(args)
    if args.split == "train":
        batch, rows = data.train.batch(0), data.train.rows_of(0).tolist()
    else:
        batch, rows = data.split(args.split).batch(0), list(range(args.count))
    others = [name for name in ("weights", "segment_ids", "positions") if name in batch]
    print_table(list(_positions(data, batch, rows, others)), ("row", "t", "token", "", "target", "", *others))


def _positions(data: Data, batch: Batch, rows: Sequence[int], others: Sequence[str]) -> Iterator[list[str]]:
    """A line for every position of every row, but of those that only fill up the last batch of a split."""
    for b, row in enumerate(rows):
        if not batch["weights"][b].any():
            continue
        for t in range(batch["tokens"].shape[1]):
            token, target = (_cells(data.tokenizer, int(batch[name][b, t])) for name in ("tokens", "targets"))
            yield [str(row), str(t), *token, *target, *(f"{batch[name][b, t]:g}" for name in others)]


def _opened(args: argparse.Namespace) -> Data:
    from lmlab.config import resolve
    from lmlab.data import open_data
    from lmlab.examples import IDS

    registry.datasets.entry(args.name)
    dataset = resolve([], args.overrides, args.plugins, args.name).build()
    tokenizer = None
    if dataset.example not in IDS:
        registry.tokenizers.entry(args.tokenizer)
        tokenizer = resolve([], [], args.plugins, args.tokenizer).build()
    return open_data(dataset, tokenizer, seq_len=args.seq_len, packing=args.packing, global_batch_size=args.count)


def _cells(tokenizer: Tokenizer | None, token: int) -> list[str]:
    """An id, and the text that it stands for."""
    if tokenizer is None:
        return [str(token), ""]
    if token == tokenizer.end_of_text:
        return [str(token), "<end of text>"]
    if token == getattr(tokenizer, "unknown", None):
        return [str(token), "<unk>"]
    return [str(token), _quoted(tokenizer.token_bytes()[token])]


def _quoted(piece: bytes) -> str:
    """As a Python literal; a part of a character as its bytes."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)
