"""Whole texts with labels, and words with tags: what classifiers and taggers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmlab.contracts import LabelBatch, LabelledText, TagBatch, TaggedText
from lmlab.data.features.encoding import encoded
from lmlab.data.features.padded import Padded, Ragged, admitted
from lmlab.data.features.rows import Rows, Setting, converts
from lmlab.errors import DataError


@converts(LabelledText, LabelBatch)
def labelled_to_labels(examples: Sequence[LabelledText], setting: Setting, training: bool) -> Rows:
    """Texts, or pairs of texts, between `classify` and `separator` ids (Devlin et al. 2019, figure 4 a and b).

    Of an overlong pair, the longer text loses its end first.

    Example: LabelledText("ab", "y"), LabelledText("a", "x", "cd"), labels=("x", "y"), seq_len=7
      tokens      = [[3 a b 2 0 0 0], [3 a 2 c d 2 0]]      # 3 classifies, 2 separates
      segment_ids = [[1 1 1 1 0 0 0], [1 1 1 1 1 1 0]]
      type_ids    = [[0 0 0 0 0 0 0], [0 0 0 1 1 1 0]]
      labels      = [1 0]
      weights     = [1 1]
    """
    examples, notes = known(examples, setting, lambda example: (example.label,), setting.labels, "label")
    first = list(encoded(examples, [example.text for example in examples], setting.text_tokenizer))
    second = list(encoded(examples, [example.second or "" for example in examples], setting.text_tokenizer))
    extra = np.array([2 if example.second is None else 3 for example in examples], np.int64)
    lengths = [len(a) + len(b) + more for a, b, more in zip(first, second, extra, strict=True)]
    kept, long_notes = admitted(examples, lengths, setting.seq_len, setting, "text")
    tokens, types = [], []
    for i in kept:
        parts = shortened((first[i], second[i]), setting.seq_len - int(extra[i]))
        marked, kinds = marked_parts(parts if examples[i].second is not None else parts[:1], setting)
        tokens.append(marked)
        types.append(kinds)
    ids = {label: i for i, label in enumerate(setting.labels)}
    labels = np.array([ids.get(examples[i].label, -1) for i in kept], np.int32)
    ragged = {
        "tokens": Ragged(tokens, setting.seq_len),
        "segment_ids": Ragged([np.ones(len(row), np.int32) for row in tokens], setting.seq_len),
        "type_ids": Ragged(types, setting.seq_len),
    }
    whole = {"labels": labels, "weights": np.ones(len(kept), np.float32)}
    return Padded(ragged, whole, {**notes, **long_notes})


@converts(TaggedText, TagBatch)
def tagged_to_tags(examples: Sequence[TaggedText], setting: Setting, training: bool) -> Rows:
    """Words between `classify` and `separator` ids; the first sub-word of each word carries its tag.

    So are tags put on sub-words by Devlin et al. 2019, section 5.3. Of an overlong example the last words are cut.

    Example: TaggedText(("ab", "c"), ("V", "N")), tags=("N", "V"), seq_len=7
      tokens      = [[3 a b _ c 2 0]]        # the word "c" is " c" where it stands
      segment_ids = [[1 1 1 1 1 1 0]]
      tags        = [[0 1 0 0 0 0 0]]
      weights     = [[0 1 0 1 0 0 0]]
    """
    examples, notes = known(examples, setting, lambda example: example.tags, setting.tags, "tag")
    if setting.labels:
        examples, more = known(examples, setting, _label, setting.labels, "label")
        notes |= more
    words = [_encoded_words(example, setting) for example in examples]
    lengths = [sum(map(len, found)) + 2 for found in words]
    kept, long_notes = admitted(examples, lengths, setting.seq_len, setting, "text")
    ids = {tag: i for i, tag in enumerate(setting.tags)}
    fields: dict[str, list[np.ndarray]] = {"tokens": [], "segment_ids": [], "tags": [], "weights": []}
    cut = 0
    for i in kept:
        starts = np.cumsum([1, *(len(word) for word in words[i])])
        fitting = int(np.searchsorted(starts[1:], setting.seq_len - 1, side="right"))
        cut += len(words[i]) - fitting
        tokens, _ = marked_parts((np.concatenate([np.empty(0, np.int32), *words[i][:fitting]]),), setting)
        tags, weights = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), np.float32)
        tags[starts[:fitting]] = [ids.get(tag, -1) for tag in examples[i].tags[:fitting]]
        weights[starts[:fitting]] = 1
        made: tuple[np.ndarray, ...] = (tokens, np.ones(len(tokens), np.int32), tags, weights)
        for name, values in zip(fields, made, strict=True):
            fields[name].append(values)
    ragged = {
        name: Ragged(values, setting.seq_len, np.float32 if name == "weights" else np.int32)
        for name, values in fields.items()
    }
    whole = {"labels": _labels([examples[i] for i in kept], setting)} if setting.labels else {}
    return Padded(ragged, whole, {**notes, **long_notes, **({"words cut": cut} if cut else {})})


def _encoded_words(example: TaggedText, setting: Setting) -> list[np.ndarray]:
    try:
        return setting.text_tokenizer.encode_words(example.words)
    except DataError as error:
        raise DataError(f"{example.source}: {error}" if example.source else str(error)) from None


def _label(example: TaggedText) -> tuple[str, ...]:
    return () if example.label is None else (example.label,)


def _labels(examples: Sequence[TaggedText], setting: Setting) -> np.ndarray:
    ids: Mapping[str | None, int] = {label: i for i, label in enumerate(setting.labels)}
    return np.array([ids.get(example.label, -1) for example in examples], np.int32)


def known(
    examples: Sequence[Any], setting: Setting, names_of: Any, names: tuple[str, ...], what: str
) -> tuple[Sequence[Any], dict[str, float]]:
    """The examples whose labels or tags the training split has too, and what became of the others.

    Raises:
      DataError: there are others, and `setting.unseen_label` is `refuse`.
    """
    there = set(names)
    others = [i for i, example in enumerate(examples) if not there.issuperset(names_of(example))]
    if not others:
        return examples, {}
    if setting.unseen_label == "refuse":
        example = examples[others[0]]
        name = next(name for name in names_of(example) if name not in there)
        raise DataError(
            f"{example.source or f'example {others[0]}'}: no training example has the {what} '{name}'; so it is with "
            f"{len(others)} of {len(examples)} examples. Set experiment.unseen_label to 'keep' (each counts as an "
            "error) or 'drop'."
        )
    if setting.unseen_label == "keep":
        return examples, {f"unseen {what} kept": len(others)}
    gone = set(others)
    left = [example for i, example in enumerate(examples) if i not in gone]
    if not left:
        raise DataError(f"no example of this split has a {what} that the training split has: nothing is left of it.")
    return left, {f"unseen {what} dropped": len(others)}


def marked_parts(parts: Sequence[np.ndarray], setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """`classify` a `separator` b `separator`, and for each id the number of its part; both (n,) int32."""
    separator = np.array([setting.special("separator", "end_of_text")], np.int32)
    tokens = [np.array([setting.special("classify", "end_of_text")], np.int32)]
    for part in parts:
        tokens += [part, separator]
    sizes = [len(part) + 1 for part in parts]
    types = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
    return np.concatenate(tokens), np.concatenate([np.zeros(1, np.int32), types])


def shortened(parts: tuple[np.ndarray, np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of together at most `limit` ids: the longer one loses its end until they are equal, then both."""
    a, b = len(parts[0]), len(parts[1])
    if a + b > limit:
        half = limit // 2
        a, b = (a, limit - a) if a <= half else (limit - b, b) if b <= limit - half else (half, limit - half)
    return parts[0][:a], parts[1][:b]
