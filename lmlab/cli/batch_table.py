"""A batch as a table: what a model will see, position by position, ids with the text that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmlab.cli.table import print_heading, print_table

if TYPE_CHECKING:
    from lmlab.contracts import Tokenizer
    from lmlab.data import Data
    from lmlab.data.features import Batch

_IDS = {"tokens": "token", "targets": "target", "source_tokens": "source"}
_ROW_WEIGHTS = ("pair_weights", "weights")


def print_batch(data: Data, batch: Batch, rows: Sequence[int]) -> None:
    """Prints what belongs to whole rows, then every position of every row; rows that only fill up are left out.

    Args:
      data: whose tokenizer, labels and tags give the names.
      batch: arrays (B,), (B, T) or (B, C, T).
      rows: the rows' numbers.
    """
    weights = batch[next(name for name in _ROW_WEIGHTS if name in batch)]
    real = [b for b in range(len(rows)) if weights[b].any()]
    whole = {name: values for name, values in batch.items() if values.ndim == 1}
    if whole:
        cells = [[str(rows[b]), *(_whole(data, name, values[b]) for name, values in whole.items())] for b in real]
        print_table(cells, ("row", *whole))
    for group in _groups(batch):
        known, others = [name for name in _IDS if name in group], [name for name in group if name not in _IDS]
        header = ("row", "t", *(cell for name in known for cell in (_IDS[name], "")), *others)
        print_table([line for b in real for line in _lines(data, group, known, others, b, str(rows[b]))], header)


def print_notes(notes: Mapping[str, float]) -> None:
    """Prints what happened on the way to the rows, on one line."""
    shown = [
        f"{name} {value:.1%}" if name.endswith("padding") else f"{name} {value:g}" for name, value in notes.items()
    ]
    print_heading("; ".join(shown))


def _groups(batch: Batch) -> list[dict[str, np.ndarray]]:
    """The arrays that have one number per position, those of one length together."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, values in batch.items():
        if values.ndim > 1:
            groups.setdefault("source" if name.startswith("source_") else "", {})[name] = values
    return [groups[key] for key in sorted(groups, reverse=True)]


def _lines(
    data: Data, group: Mapping[str, np.ndarray], known: list[str], others: list[str], b: int, row: str
) -> Iterator[list[str]]:
    shape = group[known[0]].shape[1:]
    for place in np.ndindex(shape):
        at = (b, *place)
        ids = [cell for name in known for cell in cells(data.tokenizer, int(group[name][at]))]
        choice = f"{row}, choice {place[0]}" if len(shape) > 1 else row
        yield [choice, str(place[-1]), *ids, *(_named(data, name, group, at) for name in others)]


def _named(data: Data, name: str, group: Mapping[str, np.ndarray], at: tuple[int, ...]) -> str:
    value = group[name][at]
    if name == "tags":
        return _name(data.tags, int(value)) if group["weights"][at] else ""
    return f"{value:g}" if value.dtype != bool else str(int(value))


def _whole(data: Data, name: str, value: np.number) -> str:
    if name == "labels" and data.labels:
        return _name(data.labels, int(value))
    return f"{value:g}"


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number >= 0 else "<unseen>"


def cells(tokenizer: Tokenizer | None, token: int) -> list[str]:
    """An id, and the text that it stands for."""
    if tokenizer is None:
        return [str(token), ""]
    if token == tokenizer.end_of_text:
        return [str(token), "<end of text>"]
    if token == getattr(tokenizer, "unknown", None):
        return [str(token), "<unk>"]
    role = next((role for role, number in tokenizer.special_ids.items() if number == token), None)
    return [str(token), f"<{role}>" if role else _quoted(tokenizer.token_bytes()[token])]


def _quoted(piece: bytes) -> str:
    """As a Python literal; a part of a character as its bytes."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)
