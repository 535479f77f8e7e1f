"""What a row cannot hold, and labels that training has not seen: refused, dropped and counted, or cut and counted."""

import numpy as np
import pytest

from lmlab.contracts import (
    ChoiceBatch,
    CorruptedBatch,
    Document,
    LabelBatch,
    LabelledText,
    PairBatch,
    Question,
    SentenceOrderBatch,
    SpanBatch,
    TagBatch,
    TaggedText,
    Text,
    TextPair,
    TokenBatch,
    TokenSequence,
)
from lmlab.data.features import Setting, conversion
from lmlab.data.features.corruption import corrupted, longest_window, stretches
from lmlab.data.features.sentences import split_sentences
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError, DataError
from tests.drawn import drawn

ROLES = ("mask", "separator", "classify", *(f"sentinel_{i}" for i in range(30)))
BYTES = Bytes(256, ROLES)


def rows_of(examples, reads, training=True, **setting):
    given = {"seq_len": 11, "tokenizer": BYTES, **setting}
    return conversion(type(examples[0]), reads)(examples, Setting(**given), training)


def everything(rows):
    return rows.gather(np.arange(len(rows)))


LONG = {
    LabelBatch: [LabelledText("short", "x", source="a"), LabelledText("much too long", "y", source="b:7")],
    TagBatch: [TaggedText(("a", "b"), ("x", "y"), source="a"), TaggedText(("word",) * 3, ("x",) * 3, source="b:7")],
    TokenBatch: [TextPair("ab", "cd", "a"), TextPair("much", "too long", "b:7")],
    PairBatch: [TextPair("ab", "cd", "a"), TextPair("ab", "much too long", "b:7")],
    SpanBatch: [Question("a", "bc", ("c",), (1,)), Question("a", "b too long", ("long",), (6,), source="b:7")],
    ChoiceBatch: [
        Question("a_", "b", ("c",), choices=("c", "d")),
        Question("___", "too long a text", ("c",), choices=("d", "c"), source="b:7"),
    ],
}
NAMES = {"labels": ("x", "y"), "tags": ("x", "y")}


@pytest.mark.parametrize("reads", LONG, ids=lambda reads: reads.__name__)
def test_an_overlong_example_is_refused_dropped_or_cut_as_configured(reads):
    names = {"tags": ("x", "y")} if reads is TagBatch else NAMES
    with pytest.raises(DataError, match=r"b:7: its .* room for \d+ \(experiment.seq_len = 11\).*1 of 2 examples"):
        rows_of(LONG[reads], reads, **names)
    dropped = rows_of(LONG[reads], reads, overlong="drop", **names)
    assert len(dropped) == 1 and dropped.notes["overlong dropped"] == 1
    cut = rows_of(LONG[reads], reads, training=False, overlong="cut", **names)
    assert len(cut) == 2 and cut.notes["overlong cut"] == 1
    for name, values in everything(cut).items():
        assert values.ndim == 1 or values.shape[-1] == 11, name
        np.testing.assert_array_equal(values[0], everything(dropped)[name][0])


def test_what_is_cut_of_a_pair_is_the_end_of_the_longer_text():
    pair = LabelledText("aaaaaaaaa", "x", "bbb")
    (row,) = everything(rows_of([pair], LabelBatch, overlong="cut", **NAMES))["tokens"]
    assert bytes(i for i in row.tolist() if i < 256) == b"aaaaabbb"


def test_words_that_are_cut_are_counted_and_no_word_is_cut_in_two():
    rows = rows_of(LONG[TagBatch], TagBatch, overlong="cut", tags=("x", "y"))
    assert rows.notes["words cut"] == 1 and rows.targets == 4
    assert bytes(i for i in everything(rows)["tokens"][1].tolist() if 0 < i < 256) == b"word word"


def test_an_answer_that_is_cut_off_is_counted_and_left_out_of_training_only():
    training = rows_of(LONG[SpanBatch], SpanBatch, overlong="cut")
    assert len(training) == 1 and training.notes["answers cut off"] == 1
    evaluated = everything(rows_of(LONG[SpanBatch], SpanBatch, training=False, overlong="cut"))
    assert evaluated["starts"].tolist()[1] == 0 and evaluated["weights"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("reads", "examples", "what"),
    [
        (LabelBatch, [LabelledText("a", "x"), LabelledText("b", "new", source="f:2")], "label"),
        (TagBatch, [TaggedText(("a",), ("x",)), TaggedText(("b", "c"), ("x", "new"), source="f:2")], "tag"),
    ],
)
def test_a_label_that_no_training_example_has_is_refused_dropped_or_kept_as_wrong(reads, examples, what):
    names = {"labels": ("x", "y")} if what == "label" else {"tags": ("x", "y")}
    with pytest.raises(DataError, match=rf"f:2: no training example has the {what} 'new'.*1 of 2"):
        rows_of(examples, reads, **names)
    dropped = rows_of(examples, reads, unseen_label="drop", **names)
    assert len(dropped) == 1 and dropped.notes[f"unseen {what} dropped"] == 1
    kept = rows_of(examples, reads, unseen_label="keep", **names)
    field = everything(kept)["labels" if what == "label" else "tags"]
    assert kept.notes[f"unseen {what} kept"] == 1 and (field == -1).sum() == 1
    assert kept.targets == (2 if what == "label" else 3), "it counts, as an error"
    with pytest.raises(DataError, match="nothing is left"):
        rows_of(examples[1:], reads, unseen_label="drop", **names)


def test_a_sequence_longer_than_a_row_is_refused_or_cut():
    long = TokenSequence(np.arange(20), source="task:3")
    with pytest.raises(DataError, match=r"task:3: it has 19 tokens.*seq_len is 11"):
        everything(rows_of([long], TokenBatch, tokenizer=None))
    cut = everything(rows_of([long], TokenBatch, tokenizer=None, overlong="cut"))
    assert cut["targets"].tolist() == [list(range(1, 12))]


def test_what_the_tokenizer_lacks_is_named_with_the_way_out():
    with pytest.raises(ConfigError, match=r"no id for 'mask'.*end_of_text. Add 'mask' to the tokenizer's specials"):
        Setting(seq_len=3, tokenizer=Bytes()).special("mask")
    assert Setting(seq_len=3, tokenizer=Bytes()).special("separator", "end_of_text") == 0
    with pytest.raises(ConfigError, match="needs 3 sentinels, and the tokenizer has 1"):
        longest_window(Setting(seq_len=60, tokenizer=Bytes(256, ("sentinel_0",))))


def test_packed_pairs_predict_what_pairs_in_rows_of_their_own_predict():
    pairs = [TextPair("a" * (i % 4), "b" * (i % 5 + 1), f"{i}") for i in range(23)]
    alone, packed = (rows_of(pairs, TokenBatch, packing=packing) for packing in ("windows", "first_fit"))
    assert len(packed) < len(alone) == 23 and packed.targets == alone.targets
    assert sorted(segments(everything(packed))) == sorted(segments(everything(alone)))


def segments(batch):
    """Every segment's tokens, targets and weights, wherever it stands."""
    for b in range(len(batch["tokens"])):
        for number in range(1, batch["segment_ids"][b].max() + 1):
            at = batch["segment_ids"][b] == number
            assert batch["positions"][b][at].tolist() == list(range(at.sum()))
            yield tuple(tuple(batch[name][b][at].tolist()) for name in ("tokens", "targets", "weights"))


# --- Span corruption ------------------------------------------------------------------------------------------


def test_source_and_target_of_a_corrupted_window_hold_each_of_its_ids_once():
    setting = Setting(seq_len=23, source_len=61, tokenizer=BYTES)
    size, marks = longest_window(setting), np.arange(300, 330)
    ids = np.arange(size)
    for seed in range(50):
        edges = stretches(size, np.random.default_rng(seed))
        assert (np.diff(edges) > 0).all() and edges[0] == 0 and edges[-1] == size
        source, target = (part.tolist() for part in corrupted(ids, edges, marks, end=999))
        assert len(source) <= 61 and len(target) <= 23 and source[-1] == target[-1] == 999
        rebuilt = []
        for token in source[:-1]:
            if token >= 300:
                begin = target.index(token) + 1
                rebuilt += target[begin : begin + stretch(target[begin:])]
            else:
                rebuilt.append(token)
        assert rebuilt == ids.tolist()


def stretch(tokens):
    return next(i for i, token in enumerate(tokens) if token >= 300)


def test_the_window_is_the_longest_that_fits():
    for source_len, seq_len in ((61, 23), (17, 47), (512, 114)):
        roles = tuple(f"sentinel_{i}" for i in range(100))
        setting = Setting(seq_len=seq_len, source_len=source_len, tokenizer=Bytes(256, roles))
        size = longest_window(setting)
        fits = [n for n in range(2, 700) if lengths(n)[0] <= source_len and lengths(n)[1] <= seq_len]
        assert size == fits[-1] or lengths(size + 1)[0] > source_len or lengths(size + 1)[1] > seq_len
    assert size == 568, "T5: 512 ids of source are made of 568 (Raffel et al.'s program, random_spans_helper)"


def lengths(size):
    """By the definition: 15 % noise in stretches of 3 on average, a sentinel for each in both, and an end."""
    noise = min(max(round(size * 0.15), 1), size - 1)
    count = min(max(round(noise / 3), 1), noise, size - noise)
    return size - noise + count + 1, noise + count + 1


def test_a_window_is_corrupted_anew_each_time_it_comes_and_always_the_same_at_its_place():
    rows = rows_of([Text("abcdefghijklmnop" * 20)], CorruptedBatch, seq_len=23, source_len=61)
    first = rows.gather(np.array([0, 1]), np.array([5, 6]))
    again = rows.gather(np.array([0, 1]), np.array([5, 6]))
    later = rows.gather(np.array([0, 1]), np.array([105, 106]))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["source_tokens"], later["source_tokens"])
    assert rows.targets == sum(int(everything(rows)["weights"][i].sum()) for i in range(len(rows)))


def test_as_much_is_left_out_and_in_stretches_as_long_as_the_loss_says():
    of_loss = {"density": 0.5, "mean_span": 5.0}
    rows = rows_of([Text("abcdefghijklmnop" * 60)], CorruptedBatch, seq_len=61, source_len=61, of_loss=of_loss)
    size, batch = int(rows.notes["window"]), everything(rows)
    marks = BYTES.special_ids["sentinel_0"]
    assert size == 100  # 50 kept, 50 gone in 10 stretches, and an end: 61 ids each
    for name in ("source_tokens", "targets"):
        there = batch["source_segment_ids" if name == "source_tokens" else "weights"] > 0
        assert (there.sum(1) == 61).all() and ((batch[name] >= marks) & there).sum(1).tolist() == [10] * len(rows)


@pytest.mark.parametrize("seq_len", [11, 31])
def test_passages_are_swapped_half_of_the_time_and_stand_one_after_the_other_otherwise(seq_len):
    """Sentences of two letters that rise within a document tell where each passage was."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    pairs = [alphabet[2 * n : 2 * n + 2] for n in range(13)]
    documents = [Document(tuple(pairs[: 1 + number % 13])) for number in range(1300)]
    rows = rows_of(documents, SentenceOrderBatch, seq_len=seq_len)
    batch, seen = everything(rows), 0
    for tokens, types, follows in zip(batch["tokens"], batch["type_ids"], batch["follows"], strict=True):
        text = [bytes(i for i in tokens[types == part].tolist() if 0 < i < 256).decode() for part in (0, 1)]
        assert all(text), "a passage is empty"
        before, behind = text if follows else text[::-1]
        assert before + behind in alphabet
        seen += (len(before) + len(behind)) // 2
    left_out = rows.notes["single sentences left out"]
    assert seen + left_out == sum(len(document.sentences) for document in documents)
    assert abs(batch["follows"].mean() - 0.5) < 4 * np.sqrt(0.25 / len(rows))


def test_the_sentence_rule():
    assert split_sentences("It is. Is it?\nYes") == ("It is.", "Is it?", "Yes")
    assert split_sentences('He said "No." Then 3.5 went. (So.) e.g. this') == (
        'He said "No." Then 3.5 went.', "(So.) e.g. this",
    )  # fmt: skip


@pytest.mark.parametrize("model", ["gpt", "lstm"])
def test_packed_pairs_have_the_loss_and_the_gradient_of_pairs_in_rows_of_their_own(model):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from lmlab.losses.autoregressive import Autoregressive
    from lmlab.nn.functional import ModelDef
    from lmlab.registry import models

    sizes = {"gpt": {"heads": 3, "width": 12, "seq_len": 11}, "lstm": {"width": 7}}[model]

    def make(rngs: nnx.Rngs):
        return models.get(model)(BYTES.vocab_size, layers=2, dtype=jnp.float32, rngs=rngs, **sizes)

    definition = ModelDef.of(make)
    params = drawn(definition)
    pairs = [TextPair("ab"[: i % 3], "xyz"[: i % 4], f"{i}") for i in range(23)]
    found = []
    for packing in ("windows", "first_fit"):
        batch = everything(rows_of(pairs, TokenBatch, packing=packing))

        def loss(params, batch=batch):
            return Autoregressive()(definition.bind(params), batch, None, jnp.zeros((), jnp.int32)).total

        found.append(jax.jit(jax.value_and_grad(loss))(params))
    for alone, packed in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(alone, packed, rtol=2e-5, atol=2e-5)
