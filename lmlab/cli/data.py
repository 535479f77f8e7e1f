"""Corpora: fetch them, list what is here, look at the rows that a model is trained on, and tokenise them once.

lmlab data list
lmlab data fetch state_of_the_union brown
lmlab data show brown --seq-len 24
lmlab data show atis_slots --features TagBatch
lmlab data prepare experiments/quickstart.gin --out stores/stdlib
lmlab data overlap brown
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmlab import registry
from lmlab.batches import TokenBatch
from lmlab.cli import data_prepare
from lmlab.cli.actions import add_action
from lmlab.cli.actions import run as run
from lmlab.cli.table import print_heading, print_table
from lmlab.data.archives import Archive, Origin, data_folder
from lmlab.data.fetching import fetch
from lmlab.errors import ConfigError
from lmlab.interop.packaged import PACKAGED

if TYPE_CHECKING:
    from lmlab.contracts import Dataset
    from lmlab.data import Data, JointData

_SPECIALS = ("mask", "separator", "classify", *(f"sentinel_{i}" for i in range(100)))
"""What the ids of `bytes` are given beside bytes and an end of text, which a mail may hold as NUL, where a batch other
than next-token rows is shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's sub-commands."""
    chosen = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    fetching = add_action(chosen, "fetch", "bring corpora into the cache folder", _fetch)
    fetching.add_argument(
        "names", nargs="*", metavar="NAME", help="a dataset, a tokenizer, weights, or an archive's file name"
    )
    fetching.add_argument("--all", action="store_true", help="whatever any dataset or tokenizer needs")
    listing = "show every dataset, and what tokenizers are read from: whether it is here, size, licence, source"
    add_action(chosen, "list", listing, _list)
    showing = add_action(chosen, "show", "show training rows as a model sees them", _show)
    showing.add_argument("name", metavar="NAME", help="a dataset")
    showing.add_argument("--split", choices=("train", "valid", "test"), default="train", help="(default: train)")
    showing.add_argument("--count", type=int, default=1, help="rows to show (default: 1)")
    showing.add_argument("--seq-len", type=int, default=16, metavar="T", help="tokens of a row (default: 16)")
    showing.add_argument("--source-len", type=int, metavar="S", help="tokens of an encoder-decoder's source (as T)")
    showing.add_argument("--features", metavar="LOSS", help="the loss, or the batch, to make rows for (the first)")
    showing.add_argument(
        "--overlong", choices=("refuse", "drop", "cut"), default="cut", help="examples too long (default: cut)"
    )
    showing.add_argument("--tokenizer", default="bytes", help="for datasets of text (default: bytes)")
    packings = ("windows", "first_fit", "contiguous")
    showing.add_argument("--packing", choices=packings, default="windows", help="(default: windows)")
    showing.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="'NAME.parameter = 1'",
        help="gin statements for dataset and tokenizer, separated by ';'; may be repeated",
    )  # fmt: skip
    preparing = chosen.add_parser("prepare", help="tokenise a corpus once", description=data_prepare.__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    preparing.set_defaults(act=data_prepare.run)
    data_prepare.add_arguments(preparing)
    overlapping = add_action(chosen, "overlap", "show how much of a test split stands in the training split", _overlap)
    overlapping.add_argument("name", metavar="NAME", help="a dataset")
    overlapping.add_argument("--n", type=int, default=13, metavar="N", help="words of an n-gram (default: 13)")
    overlapping.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="'NAME.parameter = 1'",
        help="gin statements for the dataset, separated by ';'; may be repeated",
    )  # fmt: skip


def _fetch(args: argparse.Namespace) -> None:
    if not args.names and not args.all:
        raise ConfigError("give the names of what to fetch, or --all. 'lmlab data list' shows what there is.")
    names = [*args.names, *(entry.name for entry, origin in _origins() if args.all and origin)]
    wanted = [_archives(name) for name in names]  # before anything is fetched: one may be misspelt
    for name, archives in zip(names, wanted, strict=True):
        if not archives:
            print(f"{name}: nothing to fetch")
    for archive in dict.fromkeys(archive for archives in wanted for archive in archives):
        fetch(archive, lambda line: print(line, flush=True))


def _archives(name: str) -> tuple[Archive, ...]:
    """The archives that a dataset needs, or the one of this file name."""
    found = {entry.name: origin.archives if origin else () for entry, origin in _origins()}
    found |= {name: (weights.archive,) for name, weights in PACKAGED.items()}
    known = found | {archive.name: (archive,) for archives in found.values() for archive in archives}
    if name not in known:
        problem = f"no dataset, weights or archive named '{name}'."
        raise ConfigError(registry.unknown(problem, "dataset and archive", name, list(known)))
    return known[name]


def _origins() -> Iterator[tuple[registry.Entry, Origin | None]]:
    """Every dataset with its origin, then the tokenizers that have one; imports only these, and so no arrays."""
    for name in registry.datasets.names():
        entry = registry.datasets.entry(name)
        yield entry, entry.attribute("origin")
    for name in registry.tokenizers.names():
        entry = registry.tokenizers.entry(name)
        if origin := entry.attribute("origin"):
            yield entry, origin


def _list(args: argparse.Namespace) -> None:
    for kind, what, size in (("dataset", "corpus", "text"), ("tokenizer", "vocabulary", "size")):
        rows = [_row(entry, origin) for entry, origin in _origins() if entry.kind == kind]
        print_table(rows, (kind, what, size, "licence", "source"))
        print()
    here = {True: "here", False: "to fetch"}
    weights = [
        [name, here[one.archive.is_here()], f"{one.archive.size / 1e6:.1f} MB", one.archive.licence, one.summary]
        for name, one in PACKAGED.items()
    ]
    print_table(weights, ("weights", "package", "size", "licence", "what"))
    print()
    print_heading(f"Archives are kept in {data_folder()} (LMLAB_DATA).")


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
    from lmlab.cli.batch_table import print_batch, print_notes
    from lmlab.data import JointData

    opened = _opened(args)
    each = opened.tasks if isinstance(opened, JointData) else (opened,)
    for place, data in enumerate(each):
        if len(each) > 1:
            print_heading(f"\n{data.name} ({place})")
        if args.split == "train":
            print_batch(data, data.train.batch(0), data.train.rows_of(0).tolist())
            print_notes(data.train.notes)
        else:
            batches = data.split(args.split)
            print_batch(data, batches.batch(0), list(range(args.count)))
            print_notes(batches.notes)


def _overlap(args: argparse.Namespace) -> None:
    from lmlab.cli.overlap_table import print_overlaps
    from lmlab.config import resolve

    if args.n < 1:
        raise ConfigError(f"--n {args.n}: it must be at least 1.")
    registry.datasets.entry(args.name)
    print_overlaps(resolve([], args.overrides, args.plugins, args.name).build(), args.n)


def _opened(args: argparse.Namespace) -> Data | JointData:
    from lmlab.config import resolve
    from lmlab.data import open_data
    from lmlab.examples import IDS

    registry.datasets.entry(args.name)
    registry.tokenizers.entry(args.tokenizer)
    statements = [part.strip() for text in args.overrides for part in text.split(";") if part.strip()]
    of_tokenizer = [part for part in statements if part.split(".")[0] == args.tokenizer]
    others = [part for part in statements if part not in of_tokenizer]
    dataset = resolve([], others, args.plugins, args.name).build()
    reads = _reads(args.features, dataset)
    tokenizer = None
    if dataset.example not in IDS:
        needed = (
            ["bytes.end_of_text = 256", f"bytes.specials = {_SPECIALS}"]
            if args.tokenizer == "bytes" and not of_tokenizer
            else []
        )
        special = needed if reads is not TokenBatch else []
        tokenizer = resolve([], [*special, *of_tokenizer], args.plugins, args.tokenizer).build()
    return open_data(
        dataset, tokenizer, reads=reads, seq_len=args.seq_len, source_len=args.source_len, packing=args.packing,
        overlong=args.overlong, unseen_label="keep", global_batch_size=args.count,
    )  # fmt: skip


def _reads(features: str | None, dataset: Dataset) -> type:
    """The batch type that a loss reads, or of this name; without a name, what the dataset is usually read as."""
    from lmlab.data.features import CONVERSIONS, conversion, usual_batch

    if features is None:
        return usual_batch(dataset)
    fitting = [reads for kind, reads in CONVERSIONS if kind is dataset.example]
    by_name = {reads.__name__: reads for _, reads in CONVERSIONS}
    if features in by_name:
        found = by_name[features]
    elif features in registry.losses.names():
        found = registry.losses.get(features).reads  # type: ignore[attr-defined]
    else:
        raise ConfigError(
            registry.unknown(f"no loss or batch named '{features}'.", "loss and batch", features,
                             [*registry.losses.names(), *(reads.__name__ for reads in fitting)])
        )  # fmt: skip
    conversion(dataset.example, found)
    return found
