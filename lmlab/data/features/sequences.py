"""Sequences of ids that are rows by themselves: made when a batch asks for them, since there may be endless many."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from lmlab.contracts import MaskableBatch, TokenBatch, TokenSequence
from lmlab.data.features.rows import Batch, Rows, Setting, converts
from lmlab.errors import DataError

_COUNTED = 1 << 16  # rows up to which all predictions are counted; behind, as many as the first rows have


class Sequences:
    """A sequence to a row, padded with zeros; a longer one is cut, or refused when a batch has it.

    Args:
      examples: any number; each is made when it is asked for.
      setting: `seq_len` is T; sequences of different lengths in an endless split cannot be dropped.
    """

    def __init__(self, examples: Sequence[TokenSequence], setting: Setting) -> None:
        self._examples, self._setting = examples, setting
        if setting.overlong == "drop":
            raise DataError("sequences that are made one by one cannot be dropped: set experiment.overlong = 'cut'.")

    def __len__(self) -> int:
        return len(self._examples)

    @functools.cached_property
    def notes(self) -> dict[str, float]:
        """Share of padding in the first rows."""
        looked_at = min(len(self), 100)
        there = sum(np.count_nonzero(self._arrays(i)[3]) for i in range(looked_at))
        return {"padding": 1 - there / max(looked_at * self._setting.seq_len, 1)}

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """All ids of a split that is not endless."""
        return np.concatenate([self._examples[i].ids for i in range(len(self))])

    @functools.cached_property
    def targets(self) -> int:
        """Predictions in all rows; in an endless split, the rows times those of the first."""
        counted = min(len(self), _COUNTED if len(self) <= _COUNTED else 100)
        found = sum(int(np.count_nonzero(self._arrays(i)[2])) for i in range(counted))
        return found if counted == len(self) else len(self) * found // counted

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `targets`, `weights` and `segment_ids`, each (B, T)."""
        columns = zip(*(self._arrays(int(row)) for row in rows), strict=True) if len(rows) else ([], [], [], [])
        empty = np.zeros((0, self._setting.seq_len))
        tokens, targets, weights, there = (np.stack(column) if len(rows) else empty for column in columns)
        return {
            "tokens": tokens.astype(np.int32),
            "targets": targets.astype(np.int32),
            "weights": weights.astype(np.float32),
            "segment_ids": there.astype(np.int32),
        }

    def _arrays(self, row: int) -> tuple[np.ndarray, ...]:
        """Tokens, targets, weights and whether there is a token, each (T,)."""
        example = self._examples[row]
        values = self.values(example)
        if len(values[0]) > self._setting.seq_len and self._setting.overlong == "refuse":
            raise DataError(
                f"{example.source or f'example {row}'}: it has {len(values[0])} tokens to read, and experiment.seq_len "
                f"is {self._setting.seq_len}. Raise it, or set experiment.overlong = 'cut'."
            )
        return tuple(self._padded(field) for field in (*values, np.ones(len(values[0]))))

    def values(self, example: TokenSequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is read, what is to be predicted then, and how much this counts, each (n,)."""
        ids, targets = (
            (example.ids[:-1], example.ids[1:]) if example.targets is None else (example.ids, example.targets)
        )
        return ids, targets, np.ones(len(targets)) if example.weights is None else example.weights

    def _padded(self, values: np.ndarray) -> np.ndarray:
        kept = values[: self._setting.seq_len]
        return np.pad(kept, (0, self._setting.seq_len - len(kept)))


class MaskableSequences(Sequences):
    """As `Sequences`, read whole, for losses that choose themselves what is to be predicted.

    Args:
      examples: as there; their targets and weights are those of another loss.
      setting: its `special_ids` are not to be chosen.
    """

    def __init__(self, examples: Sequence[TokenSequence], setting: Setting) -> None:
        super().__init__(examples, setting)
        self._special = list(setting.special_ids.values())

    def values(self, example: TokenSequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids, twice, and which may be chosen, each (n,)."""
        return example.ids, example.ids, ~np.isin(example.ids, self._special)

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `segment_ids`, `weights` and `word_starts`, each (B, T)."""
        batch = super().gather(rows)
        del batch["targets"]
        return {**batch, "word_starts": batch["weights"] > 0}


@converts(TokenSequence, TokenBatch)
def sequences_to_tokens(examples: Sequence[TokenSequence], setting: Setting, training: bool) -> Rows:
    """Sequences of ids to next-token rows, one to a row.

    Example: TokenSequence(ids(5, 6, 7)), TokenSequence(ids(8, 9), ids(3, 4), ids(0, 1)), seq_len=3
      tokens      = [[5 6 0], [8 9 0]]
      targets     = [[6 7 0], [3 4 0]]
      weights     = [[1 1 0], [0 1 0]]
      segment_ids = [[1 1 0], [1 1 0]]
    """
    return Sequences(examples, setting)


@converts(TokenSequence, MaskableBatch)
def sequences_to_maskable(examples: Sequence[TokenSequence], setting: Setting, training: bool) -> Rows:
    """Sequences of ids, one to a row, of which a loss masks any but the dataset's special ids; each id is a word.

    Example: TokenSequence(ids(8, 5, 6)), TokenSequence(ids(8, 7)), ids={"begin": 8, "mask": 9}, seq_len=4
      tokens      = [[8 5 6 0], [8 7 0 0]]
      segment_ids = [[1 1 1 0], [1 1 0 0]]
      weights     = [[0 1 1 0], [0 1 0 0]]
      word_starts = [[0 1 1 0], [0 1 0 0]]
    """
    setting.special("mask")
    return MaskableSequences(examples, setting)
