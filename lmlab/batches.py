"""Batch types: what a loss reads. A loss names one of them; `lmlab.data.features` makes it from a dataset's examples.

In all of them `segment_ids` is 0 at padding, and `weights` is 0 where nothing is to be predicted, as in the rows that
fill up an evaluation's last batch. Letters: B batch, T time, S time of the source, C choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Int


def of_task(place: int, name: str) -> str:
    """The name that an array has in a batch of several datasets, of which each has its place in their order."""
    return f"{place}/{name}"


def task_batch(batch: Mapping[str, Array], place: int) -> Mapping[str, Array]:
    """The arrays of one of the datasets in a batch; of a batch of one dataset, all of them."""
    own = {name.partition("/")[2]: values for name, values in batch.items() if name.startswith(of_task(place, ""))}
    return own or batch


class TokenBatch(TypedDict):
    """What a next-token loss reads. `targets[b, t]` follows `tokens[b, t]`; `weights` is 0 where nothing is predicted.

    With several documents in a row, `segment_ids` numbers them (0 is padding) and `positions` restarts in each. Where
    each row goes on from the same row of the batch before, `fresh` is true in those that do not: nothing was read yet.
    """

    tokens: Int[Array, "B T"]
    targets: Int[Array, "B T"]
    weights: Float[Array, "B T"]
    segment_ids: NotRequired[Int[Array, "B T"]]
    positions: NotRequired[Int[Array, "B T"]]
    fresh: NotRequired[Bool[Array, " B"]]


class PairBatch(TypedDict):
    """What an encoder-decoder's loss reads: the source, and the target as its decoder reads and predicts it."""

    source_tokens: Int[Array, "B S"]
    source_segment_ids: Int[Array, "B S"]
    tokens: Int[Array, "B T"]
    targets: Int[Array, "B T"]
    weights: Float[Array, "B T"]


class CorruptedBatch(PairBatch):
    """As a PairBatch: a text with stretches left out as the source, and the stretches as the target."""


class LabelBatch(TypedDict):
    """What a classifier's loss reads. `type_ids` is 0 in a first text and 1 in a second one."""

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    type_ids: Int[Array, "B T"]
    labels: Int[Array, " B"]
    weights: Float[Array, " B"]


class TagBatch(TypedDict):
    """What a tagger's loss reads; `weights` is 1 at the first sub-word of each word, which carries the word's tag.

    `labels` are those of whole examples, where the dataset has such.
    """

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    tags: Int[Array, "B T"]
    weights: Float[Array, "B T"]
    labels: NotRequired[Int[Array, " B"]]


class SpanBatch(TypedDict):
    """What an extractive reader's loss reads: the answer's first and last place, both 0 where there is no answer."""

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    type_ids: Int[Array, "B T"]
    starts: Int[Array, " B"]
    ends: Int[Array, " B"]
    weights: Float[Array, " B"]


class ChoiceBatch(TypedDict):
    """What a multiple-choice loss reads: the text once with each choice; `labels` is the number of the right one."""

    tokens: Int[Array, "B C T"]
    segment_ids: Int[Array, "B C T"]
    labels: Int[Array, " B"]
    weights: Float[Array, " B"]


class MaskableBatch(TypedDict):
    """What a masked language model's loss reads; it chooses what to mask itself, anew at each step, on the device.

    `weights` is 1 where a token may be chosen (not at padding and special ids); `word_starts` is true at the first
    token of every word, for masking whole words.
    """

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    weights: Float[Array, "B T"]
    word_starts: Bool[Array, "B T"]


class SentencePairBatch(TypedDict):
    """What BERT's pre-training reads: a MaskableBatch of two parts, and whether the second one follows the first.

    `follows` is 1 where it does, 0 where it comes from another document; `pair_weights` is 1 for every real row.
    """

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    type_ids: Int[Array, "B T"]
    weights: Float[Array, "B T"]
    word_starts: Bool[Array, "B T"]
    follows: Int[Array, " B"]
    pair_weights: Float[Array, " B"]


class SentenceOrderBatch(SentencePairBatch):
    """As a SentencePairBatch, of two passages that stand one after the other in a document.

    `follows` is 1 where they are in this order, 0 where they have changed places.
    """
