"""Tokenizers: train one to a file, and look at what one makes of a text.

lmlab tokenizer train bpe --data state_of_the_union --set 'bpe.size = 8000' --out sotu.json
lmlab tokenizer show gpt2 'Hello world'
lmlab tokenizer show sotu.json 'Hello world'
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab import registry
from lmlab.cli.actions import add_action
from lmlab.cli.actions import run as run
from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lmlab.contracts import Tokenizer

FILES = {".json": "hf.path = {!r}", ".model": "sentencepiece.model = {!r}"}
"""How a file is read, by its name's end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's sub-commands."""
    chosen = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    training = _action(chosen, "train", "make a vocabulary from texts, and write it to a file", _train)
    training.add_argument("name", metavar="NAME", help="a tokenizer")
    training.add_argument("--data", nargs="+", required=True, metavar="DATASET|FILE",
                          help="a dataset, whose training split is read, or text files (globs)")  # fmt: skip
    training.add_argument("--out", required=True, metavar="FILE",
                          help="where to write: tokenizer.json, or .model for sentencepiece")  # fmt: skip
    showing = _action(chosen, "show", "show the ids of a text with the bytes behind them", _show)
    showing.add_argument("name", metavar="NAME|FILE", help="a tokenizer that needs no fitting, or its file")
    showing.add_argument("text", help="what is encoded")


def _action(chosen: Any, name: str, summary: str, act: Any) -> argparse.ArgumentParser:
    parser = add_action(chosen, name, summary, act)
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="'bpe.size = 8000'",
        help="gin statements for the tokenizer, separated by ';'; may be repeated",
    )  # fmt: skip
    return parser


def _train(args: argparse.Namespace) -> None:
    from lmlab.config import resolve
    from lmlab.examples import texts_of

    entry = registry.tokenizers.entry(args.name)
    if not hasattr(entry.component, "export"):
        there = [name for name in registry.tokenizers.names() if _has_files(name)]
        raise ConfigError(
            f"the tokenizer '{args.name}' has no file of its own: every run fits it, and keeps what it found.\n"
            f"  tokenizers with files: {', '.join(there)}"
        )
    tokenizer = resolve([], args.overrides, args.plugins, args.name).build()
    dataset = _dataset(args)
    started = time.monotonic()
    fitted = tokenizer.fit(text for example in dataset.split("train") for text in texts_of(example))
    print(f"{args.name}: {fitted.vocab_size:,} ids, made in {time.monotonic() - started:.1f} s")
    _write(Path(args.out), fitted.export())
    print_table(
        list(_accounts(fitted, dataset)), ("split", "texts", "bytes", "ids", "bytes/id", "unknown", "bytes of ids")
    )
    how = FILES.get(Path(args.out).suffix)
    if how is not None:
        print_heading(f'\nUse it: --set "experiment.tokenizer = @{how.split(".")[0]}; {how.format(args.out)}"')


def _has_files(name: str) -> bool:
    try:
        return hasattr(registry.tokenizers.get(name), "export")
    except ConfigError:  # a plug-in that cannot be imported is not what was asked about
        return False


def _dataset(args: argparse.Namespace) -> Any:
    from lmlab.config import resolve
    from lmlab.examples import IDS

    if len(args.data) == 1 and args.data[0] in registry.datasets.names():
        dataset = resolve([], [], args.plugins, args.data[0]).build()
        if dataset.example in IDS:
            raise ConfigError(f"--data {args.data[0]}: this dataset yields ids, not text.")
        return dataset
    if len(args.data) == 1 and not any(character in args.data[0] for character in "*?./"):
        problem = f"--data {args.data[0]}: no dataset has this name, and no text file's name is like it."
        raise ConfigError(registry.unknown(problem, "dataset", args.data[0], registry.datasets.names()))
    shares = "text_files.valid_share = 0; text_files.test_share = 0"
    return resolve([], [f"text_files.train = {tuple(args.data)!r}; {shares}"], args.plugins, "text_files").build()


def _accounts(tokenizer: Tokenizer, dataset: Any) -> Iterator[list[str]]:
    """What the tokenizer makes of each split, in numbers."""
    from lmlab.data.accounting import account
    from lmlab.examples import texts_of

    for split in ("train", "valid"):
        with contextlib.suppress(DataError):  # a split that is not there
            found = account(tokenizer, [text for example in dataset.split(split) for text in texts_of(example)])
            unknown = "-" if found.unknown is None else f"{found.unknown:,}"
            numbers = [
                f"{found.texts:,}",
                f"{found.bytes:,}",
                f"{found.ids:,}",
                f"{found.bytes / max(found.ids, 1):.3f}",
            ]
            yield [split, *numbers, unknown, f"{found.bytes_of_ids:,}"]


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(f"{path} cannot be written: {error.strerror}. Name another file by --out.") from None


def _show(args: argparse.Namespace) -> None:
    tokenizer = _opened(args)
    ids, offsets = tokenizer.encode(args.text).tolist(), tokenizer.offsets(args.text).tolist()
    pieces = tokenizer.token_bytes()
    names = {i: f"<{role}>" for role, i in tokenizer.special_ids.items()}
    rows = [[str(i), names.get(i) or _quoted(pieces[i]), pieces[i].hex(" "), repr(args.text[start:stop])]
            for i, (start, stop) in zip(ids, offsets, strict=True)]  # fmt: skip
    print_table(rows, ("id", "piece", "bytes", "behind it"))
    total = sum(len(pieces[i]) for i in ids)
    back = "gives the text back" if tokenizer.decode(ids) == args.text else f"gives {tokenizer.decode(ids)!r}"
    print(f"\n{len(ids)} ids of {tokenizer.vocab_size:,} stand for {total} bytes; the text has "
          f"{len(args.text.encode())}. Decoding {back}.")  # fmt: skip


def _opened(args: argparse.Namespace) -> Tokenizer:
    """A tokenizer by its name, or by a file."""
    from lmlab.config import resolve

    name, overrides = args.name, list(args.overrides)
    how = FILES.get(Path(name).suffix)
    if name not in registry.tokenizers.names() and how is not None:
        overrides, name = [*overrides, how.format(args.name)], how.split(".")[0]
    registry.tokenizers.entry(name)
    tokenizer: Tokenizer = resolve([], overrides, args.plugins, name).build()
    return tokenizer.fit(_nothing(args.name))


def _nothing(name: str) -> Iterator[str]:
    """No texts: a tokenizer that asks for them cannot be shown before it is fitted."""
    if name:
        raise ConfigError(
            f"the tokenizer '{name}' is made from texts, and has no vocabulary without them. Show the file that "
            "'lmlab tokenizer train' writes."
        )
    yield ""


def _quoted(piece: bytes) -> str:
    """As a Python literal; a part of a character as its bytes."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)
