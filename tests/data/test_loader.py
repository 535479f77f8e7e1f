"""Batch k is a pure function of (seed, k): of nothing else, and of all that the fingerprint names."""

import dataclasses
import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from lmlab.contracts import Text
from lmlab.data import compare_fingerprints, open_data
from lmlab.data.corpus import Corpus
from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.data.tokenizers.plain import Bytes, Characters
from lmlab.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Sentences:
    """31 documents of different lengths and letters, 3 in the validation split."""

    example: ClassVar[type] = Text
    count: int = 31

    def split(self, name):
        return self._corpus().split(name)

    def fingerprint(self):
        return self._corpus().fingerprint()

    def _corpus(self):
        texts = [Text(f"{'abcdefg'[i % 7] * (1 + i * 5 % 17)} {i}", str(i)) for i in range(self.count)]
        pairs = [("train", text) for text in texts] + [("valid", text) for text in texts[:3]]
        return Corpus.of("sentences", pairs, "Write some.")


def opened(dataset=None, tokenizer=None, **changes):
    settings = {"seq_len": 7, "global_batch_size": 6, "seed": 3, "packing": "windows", **changes}
    if dataset is None:
        dataset, tokenizer = Sentences(), tokenizer or Bytes()
    return open_data(dataset, tokenizer, **settings)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


packings = pytest.mark.parametrize("packing", ["windows", "first_fit"])


@packings
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_the_background_gives_the_batches_that_are_asked_for_by_number(packing, prefetch):
    train = opened(packing=packing).train
    with train.iterate(2, range(6), prefetch, lambda batch: batch, stop=25) as batches:
        for k, batch in enumerate(batches, 2):
            assert_same(batch, train.batch(k))
    assert k == 24


@packings
def test_a_restart_goes_on_with_the_same_batches(packing):
    for k in (0, 5, 17):
        with opened(packing=packing).train.iterate(k, range(6), 2, lambda batch: batch) as again:
            assert_same(next(again), opened(packing=packing).train.batch(k))


@packings
def test_the_slices_of_all_processes_make_up_the_batch(packing):
    train = opened(packing=packing).train
    parts = [train.batch(4, range(start, start + 2)) for start in (0, 2, 4)]
    assert_same({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, train.batch(4))


def test_groups_are_batches_on_a_leading_axis():
    train = opened().train
    with train.iterate(1, range(2, 5), 2, lambda batch: batch, group=3, stop=9) as groups:
        sizes = []
        for start, group in zip((1, 4, 7), groups, strict=True):
            sizes.append(len(group["tokens"]))
            for i in range(sizes[-1]):
                assert_same({name: values[i] for name, values in group.items()}, train.batch(start + i, range(2, 5)))
    assert sizes == [3, 3, 2]


def test_grain_sees_the_same_batches_at_random():
    train = opened().train
    pipeline = train.pipeline(range(1, 4))
    for k in (3, 0, 10**6):
        assert_same(pipeline[k], train.batch(k, range(1, 4)))
    iterator = iter(pipeline.to_iter_dataset())
    assert_same(next(iterator), train.batch(0, range(1, 4)))


@packings
def test_an_epoch_holds_each_row_once_and_the_next_one_in_another_order(packing):
    train = opened(packing=packing).train
    n = train.rows_per_epoch
    assert n % 6  # so that batches lie across the edge
    rows = np.concatenate([train.rows_of(k) for k in range(n)])  # 6 epochs
    epochs = rows.reshape(6, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 6


def test_a_batch_across_an_epochs_edge_is_filled_from_the_next_epoch():
    train = opened().train
    n = train.rows_per_epoch
    k, left = divmod(n, 6)
    seen = {int(row) for earlier in range(k) for row in train.rows_of(earlier)}
    edge = train.rows_of(k).tolist()
    assert 0 < left < 6 and set(edge[:left]) == set(range(n)) - seen
    rest = {int(row) for later in range(k + 1, 2 * n // 6) for row in train.rows_of(later)}
    assert not set(edge[left:]) & rest
    assert train.batch(k)["tokens"].shape == (6, 7)


def test_windows_of_training_are_windows_of_the_text():
    data = opened()
    text = "\0" + "".join(text.text + "\0" for text in Sentences().split("train"))
    batch = data.train.batch(0)
    for row, tokens, targets in zip(data.train.rows_of(0), batch["tokens"], batch["targets"], strict=True):
        window = list(text[row * 7 : row * 7 + 8].encode())
        assert [*tokens, targets[-1]] == window and [*tokens[1:], targets[-1]] == list(targets)


def test_a_subset_is_the_first_examples_chosen_before_shuffling():
    whole, part = opened().train, opened(max_examples=5).train
    first = open_data(Sentences(5), Bytes(), seq_len=7, global_batch_size=6, seed=3).train
    assert part.rows_per_epoch == first.rows_per_epoch < whole.rows_per_epoch
    assert_same(part.batch(2), first.batch(2))
    assert "max_examples: null → 5" in compare_fingerprints(whole.fingerprint(), part.fingerprint())


def test_a_vocabulary_is_made_from_the_examples_in_use_and_can_be_given_back():
    small = opened(tokenizer=Characters(), max_examples=2)
    assert small.tokenizer.to_json()["characters"] == " 01ab"
    again = opened(tokenizer=Characters(), saved_tokenizer=small.tokenizer.to_json())
    assert again.vocab == small.vocab == 7


def test_unknown_characters_of_a_split_are_counted():
    data = opened(tokenizer=Characters(), max_examples=2)
    assert data.split("valid").unknown == len("c" * (1 + 10 % 17) + "2")
    assert opened().split("valid").unknown == 0


@packings
def test_evaluation_batches_hold_each_row_once_and_padding_without_weight(packing):
    split = opened(packing=packing).split("valid")
    batches = [split.batch(i) for i in range(len(split))]
    assert {batch["tokens"].shape for batch in batches} == {(6, 7)}
    total = sum(int(batch["weights"].sum()) for batch in batches)
    assert total == split.targets == sum(len(text.text) + 1 for text in Sentences().split("valid"))
    assert_same(split.batch(0, range(4, 6)), {name: values[4:] for name, values in batches[0].items()})
    with pytest.raises(IndexError):
        split.batch(len(split))


def test_all_weights_of_rows_that_fill_a_batch_up_are_zero():
    split = opened(global_batch_size=64).split("valid")
    batch = split.batch(0, range(50, 64))
    assert len(split) == 1 and batch["tokens"].shape == (14, 7)
    assert not any(values.any() for values in batch.values())


def test_seeking_far_needs_no_batch_before(monkeypatch):
    train = opened().train
    gathered = []
    gather = train._gather
    monkeypatch.setattr(train, "_gather", lambda rows, places: gathered.append(len(rows)) or gather(rows))
    with train.iterate(10**6, range(6), 0, lambda batch: batch) as batches:
        assert_same(next(batches), train.batch(10**6))
    assert gathered == [6, 6]


def test_the_fingerprint_is_the_same_after_json_and_changes_with_every_choice():
    saved = json.loads(json.dumps(opened().train.fingerprint()))
    assert compare_fingerprints(saved, opened().train.fingerprint()) is None
    changes = [
        {"seq_len": 5},
        {"packing": "first_fit"},
        {"seed": 4},
        {"global_batch_size": 4},
        {"tokenizer": Bytes(256)},
        {"tokenizer": Characters()},
        {"dataset": Sentences(30), "tokenizer": Bytes()},
    ]
    for change in changes:
        assert compare_fingerprints(saved, opened(**change).train.fingerprint()), change


def test_placing_happens_in_the_background_and_its_errors_reach_the_caller():
    import threading

    train = opened().train
    with train.iterate(0, range(6), 2, lambda batch: threading.current_thread().name) as names:
        assert next(names) == "lmlab-prefetch"

    def full(batch):
        raise MemoryError("device is full")

    with train.iterate(0, range(6), 2, full) as batches, pytest.raises(MemoryError, match="device is full"):
        next(batches)


def test_a_corpus_shorter_than_one_window_is_refused():
    with pytest.raises(DataError, match=r"random_tokens: .* shorter than one window of seq_len \+ 1 = 12 tokens"):
        opened(RandomTokens(tokens=11), seq_len=11).train.batch(0)
    assert opened(RandomTokens(tokens=12), seq_len=11).train.rows_per_epoch == 1


def test_a_split_of_one_token_cannot_be_evaluated():
    with pytest.raises(DataError, match="nothing to predict in the split 'valid': it holds one token"):
        opened(RandomTokens(valid_tokens=1)).split("valid")
    assert opened(RandomTokens(valid_tokens=2)).split("valid").targets == 1


def test_text_without_a_tokenizer_and_ids_with_one_are_refused():
    with pytest.raises(ConfigError, match=r"yields text: set experiment\.tokenizer"):
        open_data(Sentences(), None, seq_len=7, global_batch_size=2)
    with pytest.raises(ConfigError, match="'random_tokens' yields ids"):
        open_data(RandomTokens(), Bytes(), seq_len=7, global_batch_size=2)
    with pytest.raises(ConfigError, match="max_examples counts documents"):
        opened(RandomTokens(), max_examples=3)
    with pytest.raises(ConfigError, match=r"max_examples = 40, but 'Sentences' has 31"):
        opened(max_examples=40).train.batch(0)


def test_ids_have_a_vocabulary_and_no_text():
    data = opened(RandomTokens(vocab=11))
    assert data.vocab == 11 and data.text_tables is None and opened().text_tables.bytes.sum() == 255


def test_opening_data_imports_neither_jax_nor_grain():
    program = (
        "import sys, lmlab.data, lmlab.data.datasets.random_tokens as r\n"
        "lmlab.data.open_data(r.RandomTokens(), None, seq_len=5, global_batch_size=2).train.batch(3)\n"
        "assert not {'jax', 'grain', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
