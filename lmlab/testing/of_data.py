"""Laws of datasets and tokenizers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmlab.contracts import Tokens, TokenSequence
from lmlab.data import Data, JointData, open_data
from lmlab.data.features import usual_batch
from lmlab.data.tokenizers.plain import Bytes
from lmlab.examples import IDS
from lmlab.testing.tiny import Tiny

SPLITS = ("train", "valid", "test")
SEQ_LEN = 47
ENDLESS = 1 << 20  # examples from which on a split counts as endless
LITERALS = ("<|endoftext|>", "[MASK]", "[SEP]", "[CLS]", "[PAD]", "<mask>", "<s>", "</s>", "<pad>", "<eos>", "<0x00>")
SAMPLE = "def f(x):\n    return 'naïve'  # 日本, 🙂\n\ttabs\r\nand  spaces "


def splits_are_disjoint(tiny: Tiny) -> None:
    """There is a training, a validation and a test split, and no example (or document of examples) is in two of them.

    A corpus whose splits share examples as shipped says by `SHARED: ClassVar[int]` how many distinct ones do, exactly.
    """
    dataset = tiny.alone().build()
    whole = _document if getattr(dataset, "part_of", None) else _content
    splits = {name: [whole(example) for example in _looked_at(dataset, name)] for name in SPLITS}
    assert all(splits.values()), f"empty: {[name for name, found in splits.items() if not found]}"
    if dataset.example is not Tokens and not getattr(dataset, "independent", False):
        pairs = list(itertools.combinations(SPLITS, 2))
        both = {(one, other): set(splits[one]) & set(splits[other]) for one, other in pairs}
        found = ", ".join(f"{len(shared)} in {one} and {other}" for (one, other), shared in both.items() if shared)
        said = getattr(dataset, "SHARED", 0)
        assert len(set().union(*both.values())) == said, f"{found or 'none'} are in two splits; SHARED says {said}"


def yields_what_it_says(tiny: Tiny) -> None:
    """Every example is of the kind that the class names; ids are below its vocabulary, labels and tags are its own."""
    dataset = tiny.alone().build()
    for example in dataset.split("train")[:100]:
        assert isinstance(example, dataset.example), f"{type(example).__name__} is no {dataset.example.__name__}"
        if isinstance(example, Tokens | TokenSequence):
            ids = np.asarray(example.ids)  # several memory maps may stand for one array
            assert ids.ndim == 1 and ids.dtype.kind in "iu"
            assert ids.min() >= 0 and ids.max() < dataset.vocab
        if getattr(example, "label", None) is not None:
            assert example.label in dataset.labels and list(dataset.labels) == sorted(set(dataset.labels))
        if hasattr(example, "tags"):
            assert set(example.tags) <= set(dataset.tags) and len(example.tags) == len(example.words)


def is_the_same_each_time(tiny: Tiny) -> None:
    """Opened twice it has the same examples in the same order, and the same fingerprint."""
    one, other = tiny.alone().build(), tiny.alone().build()
    for name in SPLITS:
        assert [_content(e) for e in _looked_at(one, name)] == [_content(e) for e in _looked_at(other, name)]
    assert one.fingerprint() == other.fingerprint()


def batch_k_is_a_pure_function(tiny: Tiny) -> None:
    """Batch k depends on the seed and on k only: not on the batches before it, nor on which rows are asked for."""
    one, other = _opened(tiny).train, _opened(tiny).train
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
    one, other = _opened(tiny).train, _opened(tiny, seed=4).train
    assert not np.array_equal(one.rows_of(0), other.rows_of(0))
    assert one.fingerprint() != other.fingerprint()


def other_settings_are_another_fingerprint(tiny: Tiny) -> None:
    """The pipeline's fingerprint tells its settings apart, so that a run is not resumed on other batches."""
    changes: tuple[dict[str, Any], ...] = (
        {}, {"seq_len": SEQ_LEN - 2}, {"global_batch_size": 8}, {"packing": "first_fit"}, {"unseen_label": "keep"},
    )  # fmt: skip
    prints = [_opened(tiny, **changed).train.fingerprint() for changed in changes]
    assert all(one != other for one, other in itertools.combinations(prints, 2))


def _looked_at(dataset: Any, split: str) -> Sequence[Any]:
    """The examples of a split; of an endless one, the first."""
    examples = dataset.split(split)
    return examples if len(examples) < ENDLESS else examples[:300]


def _opened(tiny: Tiny, **changes: Any) -> Data | JointData:
    """The dataset as what it is usually read as."""
    dataset = tiny.alone().build()
    reads = usual_batch(dataset)
    tokenizer = None if dataset.example in IDS else Bytes(256, ("mask", "separator", "classify"))
    settings: dict[str, Any] = {"seq_len": SEQ_LEN, "global_batch_size": 16, "seed": 3, "overlong": "cut"}
    return open_data(dataset, tokenizer, **{**settings, **changes}, reads=reads)


def _document(example: Any) -> str:
    """What an example is a part of."""
    document, colon, _ = example.source.rpartition(":")
    assert document and colon, f"the source '{example.source}' does not name the document and the part"
    return document


def _content(example: Any) -> Any:
    """What makes two examples the same: all but the name of where they stand."""
    found = {
        field.name: getattr(example, field.name) for field in dataclasses.fields(example) if field.name != "source"
    }
    return tuple(np.asarray(value).tobytes() if hasattr(value, "dtype") else value for value in found.values())


def text_survives(tiny: Tiny) -> None:
    """Ids are int32 below V; text that the tokenizer was fitted on comes back as it was, unless it says `lossy`."""
    tokenizer = _fitted(tiny)
    ids = tokenizer.encode(SAMPLE)
    assert ids.ndim == 1 and ids.dtype == np.int32, f"ids are {ids.dtype} of shape {ids.shape}"
    assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size and tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == SAMPLE or _lossy(tokenizer)
    assert len(tokenizer.encode("")) == 0 and tokenizer.decode(np.array([], np.int32)) == ""


def tokens_are_bytes(tiny: Tiny) -> None:
    """`token_bytes` has an entry for every id, none for special ones; unless `lossy`, a text's are its UTF-8."""
    tokenizer = _fitted(tiny)
    pieces = tokenizer.token_bytes()
    assert len(pieces) == tokenizer.vocab_size
    assert all(pieces[i] == b"" for i in tokenizer.special_ids.values())
    assert b"".join(pieces[i] for i in tokenizer.encode(SAMPLE)) == SAMPLE.encode() or _lossy(tokenizer)


def batches_are_encoded_as_one_by_one(tiny: Tiny) -> None:
    """`encode_batch` gives what `encode` gives for each text, in their order."""
    tokenizer = _fitted(tiny)
    texts = [SAMPLE, "", *SAMPLE.split(), SAMPLE * 5]
    batch = tokenizer.encode_batch(texts)
    assert len(batch) == len(texts) and tokenizer.encode_batch([]) == []
    for text, ids in zip(texts, batch, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
        assert ids.dtype == np.int32


def words_make_their_text(tiny: Tiny) -> None:
    """The ids of words, each of at least one id, are in a row those of the words with single spaces between."""
    tokenizer, words = _fitted(tiny), SAMPLE.split()
    found = tokenizer.encode_words(words)
    assert len(found) == len(words) and all(len(ids) for ids in found) and list(tokenizer.encode_words([])) == []
    np.testing.assert_array_equal(np.concatenate(found), tokenizer.encode(" ".join(words)))


def offsets_are_ranges_of_the_text(tiny: Tiny) -> None:
    """Every id has a range of characters, none before that of the id before it; unless `lossy`, they leave none out."""
    tokenizer = _fitted(tiny)
    offsets = tokenizer.offsets(SAMPLE)
    assert offsets.shape == (len(tokenizer.encode(SAMPLE)), 2) and offsets.dtype == np.int32
    assert tokenizer.offsets("").shape == (0, 2)
    start, stop = offsets[:, 0], offsets[:, 1]
    assert start.min() >= 0 and stop.max() <= len(SAMPLE) and (start <= stop).all()
    assert (np.diff(start) >= 0).all() and (np.diff(stop) >= 0).all()
    covered = np.zeros(len(SAMPLE), bool)
    for one, other in offsets:
        covered[one:other] = True
    assert covered.all() or _lossy(tokenizer), f"no id stands for {SAMPLE[int(covered.argmin())]!r}"


def special_ids_are_never_made_from_text(tiny: Tiny) -> None:
    """Special ids are distinct, and text that looks like a special token is text. The unknown is made from text."""
    tokenizer = _fitted(tiny)
    special = dict(tokenizer.special_ids)
    assert special["end_of_text"] == tokenizer.end_of_text
    ends = special.pop("end_of_text")
    assert len(set(special.values())) == len(special), f"two roles have one id: {special}"
    assert ends not in special.values() or ends == special.get("separator"), f"the end of text is another's: {special}"
    looks = [f"{opening}{role}{closing}" for role in special for opening, closing in (("<|", "|>"), ("[", "]"), "<>")]
    text = " ".join([*LITERALS, *looks, *map(str.upper, looks), "".join(LITERALS)])
    made = {role for role, i in tokenizer.special_ids.items() if role != "unknown" and i in tokenizer.encode(text)}
    assert not made, f"plain text made the special ids of {', '.join(made)}"


def a_saved_vocabulary_is_the_same(tiny: Tiny) -> None:
    """What `to_json` saves, `from_json` gives back: the same ids for the same text."""
    tokenizer = _fitted(tiny)
    again = tiny.alone().build().from_json(tokenizer.to_json())
    assert again.vocab_size == tokenizer.vocab_size and again.to_json() == tokenizer.to_json()
    np.testing.assert_array_equal(again.encode(SAMPLE), tokenizer.encode(SAMPLE))


def fitting_is_deterministic(tiny: Tiny) -> None:
    """The same training texts give the same vocabulary."""
    assert _fitted(tiny).to_json() == _fitted(tiny).to_json()


def _lossy(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "lossy", False))


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
TOKENIZER_LAWS = (
    text_survives,
    tokens_are_bytes,
    batches_are_encoded_as_one_by_one,
    words_make_their_text,
    offsets_are_ranges_of_the_text,
    special_ids_are_never_made_from_text,
    a_saved_vocabulary_is_the_same,
    fitting_is_deterministic,
)
