"""Pairs of a text and its target, for an encoder-decoder or, the text as a prefix, for a decoder alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmlab.contracts import PairBatch, TextPair, TokenBatch, Tokenizer
from lmlab.data.features.encoding import encoded
from lmlab.data.features.padded import Padded, Ragged, admitted
from lmlab.data.features.rows import Rows, Setting, converts
from lmlab.data.features.stream import Packed, Stream

TARGET_START = "target_start"
"""The role of a special id that targets begin with, where that is not the end of text: T5's padding."""


def target_start(tokenizer: Tokenizer) -> int:
    """The id that a target begins with."""
    return tokenizer.special_ids.get(TARGET_START, tokenizer.end_of_text)


@converts(TextPair, PairBatch)
def pairs_to_pairs(examples: Sequence[TextPair], setting: Setting, training: bool) -> Rows:
    """A text for the encoder, its target for the decoder, which reads what it has written (Sutskever et al. 2014).

    The text is followed by the end-of-text id; the target begins after one (or after the tokenizer's own id for that,
    `TARGET_START`) and ends with one. Overlong ones lose their
    ends, but not these ids.

    Example: TextPair("ab", "cd"), TextPair("a", "b"), source_len=4, seq_len=3
      source_tokens      = [[a b 0 0], [a 0 0 0]]
      source_segment_ids = [[1 1 1 0], [1 1 0 0]]
      tokens             = [[0 c d], [0 b 0]]
      targets            = [[c d 0], [b 0 0]]
      weights            = [[1 1 1], [1 1 0]]
    """
    source_len = setting.source_len or setting.seq_len
    sources, targets = _both(examples, setting)
    kept, notes = admitted(examples, (len(ids) + 1 for ids in sources), source_len, setting, "text", "source_len")
    there = [examples[i] for i in kept]
    also, more = admitted(there, (len(targets[i]) + 1 for i in kept), setting.seq_len, setting, "target")
    end = np.array([setting.special("end_of_text")], np.int32)
    start = np.array([setting.special(TARGET_START, "end_of_text")], np.int32)
    read = [np.append(sources[i][: source_len - 1], end) for i in kept[also]]
    written = [np.append(targets[i][: setting.seq_len - 1], end) for i in kept[also]]
    ragged = {
        "source_tokens": Ragged(read, source_len),
        "source_segment_ids": Ragged([np.ones(len(ids), np.int32) for ids in read], source_len),
        "tokens": Ragged([np.append(start, ids[:-1]) for ids in written], setting.seq_len),
        "targets": Ragged(written, setting.seq_len),
        "weights": Ragged([np.ones(len(ids), np.float32) for ids in written], setting.seq_len, np.float32),
    }
    return Padded(ragged, {}, {name: notes.get(name, 0) + more.get(name, 0) for name in {**notes, **more}})


@converts(TextPair, TokenBatch)
def pairs_to_tokens(examples: Sequence[TextPair], setting: Setting, training: bool) -> Rows:
    """A text as the prefix of its target, of which alone the tokens are predicted (Radford et al. 2019, section 3.7).

    Pairs stand in rows of their own or, with packing `first_fit`, several to a row as segments. Of an overlong pair
    the text loses its end, and the target only what the text cannot give.

    Example: TextPair("ab", "cd"), TextPair("a", "b"), seq_len=7
      tokens      = [[0 a b 2 c d 0], [0 a 2 b 0 0 0]]      # 2 separates
      targets     = [[a b 2 c d 0 0], [a 2 b 0 0 0 0]]
      weights     = [[0 0 0 1 1 1 0], [0 0 1 1 0 0 0]]
      segment_ids = [[1 1 1 1 1 1 0], [1 1 1 1 0 0 0]]
      positions   = [[0 1 2 3 4 5 0], [0 1 2 3 0 0 0]]
    """
    separator = np.array([setting.special("separator", "end_of_text")], np.int32)
    end = np.array([setting.special("end_of_text")], np.int32)
    texts, targets = _both(examples, setting)
    lengths = (len(text) + len(target) + 2 for text, target in zip(texts, targets, strict=True))
    kept, notes = admitted(examples, lengths, setting.seq_len, setting, "text with its target")
    parts, weights, sizes = [end], [], []
    for i in kept:
        target = targets[i][: max(setting.seq_len - 2, 0)]
        text = texts[i][: max(setting.seq_len - 2 - len(target), 0)]
        parts += [text, separator, target, end]
        weights += [np.zeros(len(text) + 1, np.float32), np.ones(len(target) + 1, np.float32)]
        sizes.append(len(text) + len(target) + 2)
    edges = np.cumsum([0, *sizes])
    documents = np.stack([edges[:-1], edges[1:]], axis=1)
    ids = np.concatenate(parts)
    stream = Stream(ids, np.array([[0, len(ids) - 1]]), documents, np.concatenate([np.empty(0, np.float32), *weights]))
    rows = Packed(stream, setting.seq_len, together=setting.packing == "first_fit")
    rows.notes |= notes
    return rows


def _both(examples: Sequence[TextPair], setting: Setting) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Ids of the texts and of the targets."""
    tokenizer = setting.text_tokenizer
    texts = list(encoded(examples, [example.text for example in examples], tokenizer))
    return texts, list(encoded(examples, [example.target for example in examples], tokenizer))
