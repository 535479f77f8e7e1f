"""Span corruption: text with stretches left out, and the stretches as what is to be written (Raffel et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmlab.contracts import CorruptedBatch, Text
from lmlab.data.features.pairs import TARGET_START
from lmlab.data.features.rows import Batch, Rows, Setting, converts
from lmlab.data.features.stream import text_stream
from lmlab.errors import ConfigError


class Noise(NamedTuple):
    """What is left out of a window; by default as much as in Raffel et al. 2020, section 3.3.4.

    Attributes:
      density: share of the ids.
      mean_span: mean length of a stretch.
    """

    density: float = 0.15
    mean_span: float = 3.0

    @classmethod
    def of(cls, setting: Setting) -> Noise:
        """As the loss has it."""
        return cls(**setting.of_loss)

    def counts(self, size: int) -> tuple[int, int]:
        """Ids that are left out of so many, and in how many stretches."""
        noise = min(max(round(size * self.density), 1), size - 1)
        return noise, min(max(round(noise / self.mean_span), 1), noise, size - noise)

    def lengths(self, size: int) -> tuple[int, int]:
        """Ids of the source and of the target that so many ids become."""
        if size < 2:
            return size + 1, 1
        noise, count = self.counts(size)
        return size - noise + count + 1, noise + count + 1


T5_NOISE = Noise()


class Corrupted:
    """Windows of a stream, each with other stretches left out every time it comes.

    Args:
      ids: the stream.
      window: ids of a row before any is left out.
      setting: `source_len` and `seq_len` bound source and target; the seed decides what is left out.
      tail: keep the shorter window at the end of the stream.
    """

    def __init__(self, ids: np.ndarray, window: int, setting: Setting, tail: bool) -> None:
        self.ids, self._window, self._setting = ids, window, setting
        self._end = setting.special("end_of_text")
        self._start = setting.special(TARGET_START, "end_of_text")
        self._sentinels, self._noise = sentinels(setting), Noise.of(setting)
        self._count = -(-len(ids) // window) if tail else len(ids) // window
        rest = len(ids) % window if tail else 0
        lengths = ((window, len(ids) // window), (rest, 1))
        self.targets = sum(self._noise.lengths(size)[1] * many for size, many in lengths if size)
        self.notes: dict[str, float] = {"window": window}

    def __len__(self) -> int:
        return self._count

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """The batch of an encoder-decoder; what is left out is drawn from the seed and a row's place."""
        setting, places = self._setting, rows if places is None else places
        source_len = setting.source_len or setting.seq_len
        sources, targets = np.zeros((len(rows), source_len), np.int32), np.zeros((len(rows), setting.seq_len), np.int32)
        there, weights = np.zeros_like(sources), np.zeros(targets.shape, np.float32)
        for b, (row, place) in enumerate(zip(rows.tolist(), places.tolist(), strict=True)):
            ids = self.ids[row * self._window : (row + 1) * self._window].astype(np.int32)
            drawn = np.random.Generator(np.random.PCG64([abs(setting.seed), place]))
            source, target = corrupted(ids, stretches(len(ids), drawn, self._noise), self._sentinels, self._end)
            sources[b, : len(source)], targets[b, : len(target)] = source, target
            there[b, : len(source)] = weights[b, : len(target)] = 1
        tokens = np.concatenate([np.full((len(rows), 1), self._start, np.int32), targets[:, :-1]], axis=1)
        tokens *= weights > 0
        return {
            "source_tokens": sources,
            "source_segment_ids": there,
            "tokens": tokens,
            "targets": targets,
            "weights": weights,
        }


@converts(Text, CorruptedBatch)
def text_to_corrupted(examples: Sequence[Text], setting: Setting, training: bool) -> Rows:
    """Windows of the stream of documents, with stretches left out: as many and as long as the loss says.

    In the source a sentinel stands for each stretch; the target has each sentinel with what it stands for (Raffel et
    al. 2020, section 3.1.4). The window is the longest whose source and target fit. The tokenizer gives the sentinels:
    its special ids whose role begins with `sentinel`, in their order.

    Example: Text("abcdefg"), source_len=8, seq_len=6, seed=0
      source_tokens      = [[0 a b c d e 5 0]]      # 5 and 6 are sentinels
      source_segment_ids = [[1 1 1 1 1 1 1 1]]
      tokens             = [[0 5 f 0 0 0]]
      targets            = [[5 f 0 0 0 0]]
      weights            = [[1 1 1 0 0 0]]
    """
    ids = text_stream(examples, setting.text_tokenizer).ids
    window = longest_window(setting)
    return Corrupted(ids, window, setting, tail=not training)


def longest_window(setting: Setting) -> int:
    """The most ids whose source has at most S and whose target has at most T ids, each with its end of text.

    Raises:
      ConfigError: there are too few sentinels, or no window is short enough.
    """
    source_len, most, noise = setting.source_len or setting.seq_len, len(sentinels(setting)), Noise.of(setting)
    size = 1
    while noise.lengths(size + 1)[0] <= source_len and noise.lengths(size + 1)[1] <= setting.seq_len:
        size += 1
    if size < 2:
        raise ConfigError("span corruption needs longer rows: raise experiment.seq_len and experiment.source_len.")
    if (needed := noise.counts(size)[1]) > most:
        raise ConfigError(
            f"span corruption of {size} ids needs {needed} sentinels, and the tokenizer has {most}. Add sentinel_0, "
            f"sentinel_1, ... to the tokenizer's specials, or lower experiment.seq_len."
        )
    return size


def sentinels(setting: Setting) -> np.ndarray:
    """Ids of the roles `sentinel...`, in the order of the tokenizer's special ids."""
    special = setting.text_tokenizer.special_ids
    return np.array([number for role, number in special.items() if role.startswith("sentinel")], np.int32)


def stretches(size: int, drawn: np.random.Generator, left_out: Noise = T5_NOISE) -> np.ndarray:
    """Edges of kept and left-out stretches in turn, (2 n + 1,): the first is kept, and 0 and `size` are edges.

    n stretches of together round(density · size) ids, all divisions alike, as in Raffel et al.'s program.
    """
    noise, count = left_out.counts(size)
    kept, gone = _divided(size - noise, count, drawn), _divided(noise, count, drawn)
    return np.cumsum([0, *np.stack([kept, gone], axis=1).reshape(-1)])


def corrupted(ids: np.ndarray, edges: np.ndarray, marks: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of ids whose stretches between `edges` are kept and left out in turn."""
    source, target = [], []
    for number, mark in enumerate(marks[: len(edges) // 2]):
        begin, middle, stop = edges[2 * number : 2 * number + 3]
        source += [ids[begin:middle], [mark]]
        target += [[mark], ids[middle:stop]]
    return np.concatenate([*source, [end]]), np.concatenate([*target, [end]])


def _divided(total: int, parts: int, drawn: np.random.Generator) -> np.ndarray:
    """`total` as `parts` positive numbers, every way being as likely."""
    cuts = np.sort(drawn.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
