"""Laws of datasets and tokenizers."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from lmlab.contracts import Text, Tokens
from lmlab.testing.tiny import Tiny

SAMPLE = "def f(x):\n    return 'naïve'  # 日本, 🙂\n\ttabs\r\nand  spaces "


def splits_are_disjoint(tiny: Tiny) -> None:
    """There is a training, a validation and a test split, and no document is in two of them."""
    dataset = tiny.alone().build()
    splits = {name: [_content(example) for example in dataset.split(name)] for name in ("train", "valid", "test")}
    assert all(splits.values()), f"empty: {[name for name, found in splits.items() if not found]}"
    if dataset.example is Text:
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
            both = set(splits[one]) & set(splits[other])
            assert not both, f"{len(both)} documents are in {one} and in {other}"


def yields_what_it_says(tiny: Tiny) -> None:
    """Every example is of the kind that the class names; ids are below its vocabulary."""
    dataset = tiny.alone().build()
    for example in dataset.split("train")[:100]:
        assert isinstance(example, dataset.example), f"{type(example).__name__} is no {dataset.example.__name__}"
        if isinstance(example, Tokens):
            assert example.ids.ndim == 1 and example.ids.dtype.kind in "iu"
            assert example.ids.min() >= 0 and example.ids.max() < dataset.vocab


def is_the_same_each_time(tiny: Tiny) -> None:
    """Opened twice it has the same examples in the same order, and the same fingerprint."""
    one, other = tiny.alone().build(), tiny.alone().build()
    for name in ("train", "valid", "test"):
        assert [_content(e) for e in one.split(name)] == [_content(e) for e in other.split(name)]
    assert one.fingerprint() == other.fingerprint()


def batch_k_is_a_pure_function(tiny: Tiny) -> None:
    """Batch k depends on the seed and on k only: not on the batches before it, nor on which rows are asked for."""
    one, other = tiny.program().data.train, tiny.program().data.train
    for k in (5, 0, 1_000_003):
        whole = one.batch(k, range(16))
        again = other.batch(k, range(16))
        parts = [one.batch(k, range(start, start + 4)) for start in range(0, 16, 4)]
        for name, rows in whole.items():
            np.testing.assert_array_equal(rows, again[name])
            np.testing.assert_array_equal(rows, np.concatenate([part[name] for part in parts]))
    first, later = one.batch(0, range(16)), one.batch(1, range(16))
    assert any(not np.array_equal(first[name], later[name]) for name in first), "batches 0 and 1 are the same"


def the_seed_changes_the_order(tiny: Tiny) -> None:
    """Another seed gives another order of the rows, and another fingerprint."""
    one, other = tiny.program().data.train, tiny.program(seed=4).data.train
    assert not np.array_equal(one.rows_of(0), other.rows_of(0))
    assert one.fingerprint() != other.fingerprint()


def other_settings_are_another_fingerprint(tiny: Tiny) -> None:
    """The pipeline's fingerprint tells its settings apart, so that a run is not resumed on other batches."""
    changes: tuple[dict[str, Any], ...] = ({}, {"seq_len": 5}, {"global_batch_size": 8}, {"packing": "first_fit"})
    prints = [tiny.program(**changed).data.train.fingerprint() for changed in changes]
    assert all(one != other for one, other in itertools.combinations(prints, 2))


def _content(example: Any) -> Any:
    """What makes two examples the same: all but the name of where they stand."""
    found = {
        field.name: getattr(example, field.name) for field in dataclasses.fields(example) if field.name != "source"
    }
    return tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in found.values())


def text_survives(tiny: Tiny) -> None:
    """Text that the tokenizer was fitted on comes back as it was."""
    tokenizer = _fitted(tiny)
    ids = tokenizer.encode(SAMPLE)
    assert ids.ndim == 1 and ids.dtype == np.int32, f"ids are {ids.dtype} of shape {ids.shape}"
    assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size and tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == SAMPLE
    assert len(tokenizer.encode("")) == 0 and tokenizer.decode(np.array([], np.int32)) == ""


def tokens_are_bytes(tiny: Tiny) -> None:
    """`token_bytes` has an entry for every id, and those of a text's ids are the text's UTF-8."""
    tokenizer = _fitted(tiny)
    pieces = tokenizer.token_bytes()
    assert len(pieces) == tokenizer.vocab_size
    assert pieces[tokenizer.end_of_text] == b""
    assert b"".join(pieces[i] for i in tokenizer.encode(SAMPLE)) == SAMPLE.encode()


def a_saved_vocabulary_is_the_same(tiny: Tiny) -> None:
    """What `to_json` saves, `from_json` gives back: the same ids for the same text."""
    tokenizer = _fitted(tiny)
    again = tiny.alone().build().from_json(tokenizer.to_json())
    assert again.vocab_size == tokenizer.vocab_size and again.to_json() == tokenizer.to_json()
    np.testing.assert_array_equal(again.encode(SAMPLE), tokenizer.encode(SAMPLE))


def fitting_is_deterministic(tiny: Tiny) -> None:
    """The same training texts give the same vocabulary."""
    assert _fitted(tiny).to_json() == _fitted(tiny).to_json()


def _fitted(tiny: Tiny) -> Any:
    return tiny.alone().build().fit([SAMPLE, "more of it: " + SAMPLE])


DATASET_LAWS = (
    splits_are_disjoint,
    yields_what_it_says,
    is_the_same_each_time,
    batch_k_is_a_pure_function,
    the_seed_changes_the_order,
    other_settings_are_another_fingerprint,
)
TOKENIZER_LAWS = (text_survives, tokens_are_bytes, a_saved_vocabulary_is_the_same, fitting_is_deterministic)
