"""Rows that hold one example each: ragged fields, padded with zeros, and numbers that belong to the whole example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmlab.data.features.rows import Batch, Setting
from lmlab.errors import DataError


class Ragged:
    """A field of every example, of any length each, that becomes (B, width) with zeros behind.

    Args:
      values: of each example, 1-d.
      width: of the padded rows.
      dtype: of the padded rows.
    """

    def __init__(self, values: Sequence[np.ndarray], width: int, dtype: type = np.int32) -> None:
        self.lengths = np.array([len(value) for value in values], np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self.values: np.ndarray = np.concatenate([np.empty(0, dtype), *values]).astype(dtype, copy=False)
        self.width = width

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """These examples' values, (B, width)."""
        there = np.arange(self.width) < self.lengths[rows][:, None]
        padded = np.zeros((len(rows), self.width), self.values.dtype)
        place = np.broadcast_to(self._starts[rows][:, None] + np.arange(self.width), there.shape)
        padded[there] = self.values[place[there]]
        return padded


class Padded:
    """One example to a row.

    Example, with `tokens` [[7, 8], [9]] of width 3 and `labels` [4, 5]:
      tokens = [[7 8 0]
                [9 0 0]]
      labels = [4 5]

    Args:
      ragged: fields (B, width).
      whole: fields (B,): one number per example. `weights` is in one of both, and says what is predicted.
      notes: see `Rows`.
    """

    def __init__(
        self, ragged: Mapping[str, Ragged], whole: Mapping[str, np.ndarray], notes: Mapping[str, float]
    ) -> None:
        self._ragged, self._whole = ragged, whole
        weights = ragged["weights"].values if "weights" in ragged else whole["weights"]
        self.targets = int(np.count_nonzero(weights))
        filled = sum(int(field.lengths.sum()) for field in ragged.values())
        places = sum(field.width * len(field.lengths) for field in ragged.values())
        self.notes = {"padding": 1 - filled / max(places, 1), **notes}

    def __len__(self) -> int:
        return len(next(iter(self._ragged.values())).lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row fills of its longest field, (N,): what rows are sorted into buckets by."""
        return np.max([field.lengths for field in self._ragged.values()], axis=0)

    @property
    def ids(self) -> np.ndarray:
        """All ids that are predicted or, where none are, that are read."""
        return self._ragged["targets" if "targets" in self._ragged else "tokens"].values

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """These rows, freshly made."""
        padded = {name: field.gather(rows) for name, field in self._ragged.items()}
        return padded | {name: values[rows] for name, values in self._whole.items()}


def admitted(
    examples: Sequence[Any], lengths: Iterable[int], limit: int, setting: Setting, what: str, key: str = "seq_len"
) -> tuple[np.ndarray, dict[str, float]]:
    """Which examples are kept, given how many tokens each has; those that are too long stay, to be cut, or go.

    Args:
      examples: for the message.
      lengths: tokens of each.
      limit: tokens that there is room for.
      setting: says what becomes of longer ones.
      what: what is too long, for the message: "text", "target".
      key: the setting of the experiment that limits it.

    Returns:
      Numbers of the examples that are kept, and notes: `overlong dropped` or `overlong cut`, where there are such.

    Raises:
      DataError: there are such, and `setting.overlong` is `refuse`.
    """
    found = np.fromiter(lengths, np.int64, len(examples))
    overlong = found > limit
    count = int(overlong.sum())
    if not count:
        return np.arange(len(examples)), {}
    if setting.overlong == "refuse":
        first = int(np.argmax(overlong))
        raise DataError(
            f"{examples[first].source or f'example {first}'}: its {what} has {found[first]} tokens, and a row has room "
            f"for {limit} (experiment.{key} = {getattr(setting, key) or setting.seq_len}); so it is with {count} of "
            f"{len(examples)} examples, the longest having {found.max()}. Raise experiment.{key}, or set "
            "experiment.overlong to 'cut' or 'drop'."
        )
    if setting.overlong == "drop":
        return np.flatnonzero(~overlong), {"overlong dropped": count}
    return np.arange(len(examples)), {"overlong cut": count}
