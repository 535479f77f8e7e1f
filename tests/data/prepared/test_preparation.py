"""A prepared corpus is the corpus: the same batches, bytes for any number of workers, and nothing copied."""

import dataclasses
import json

import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.contracts import LabelledText, Question, TaggedText, TextPair
from lmlab.data import open_data
from lmlab.data.datasets.prepared import Prepared, PreparedExamples
from lmlab.data.prepared import Request, Store, prepare
from lmlab.data.prepared.joined import Joined
from lmlab.errors import ConfigError, DataError


def spec(name, **bindings):
    return resolve([], {f"{name}.{key}": value for key, value in bindings.items()}, root=name).spec


@pytest.fixture
def corpus(tmp_path):
    """A text of 3000 paragraphs of 1 to 600 characters, some of them in UTF-8's longer forms, in three splits."""
    rng = np.random.default_rng(7)
    letters = np.array(list("abcdefgh \N{SNOWMAN}é"))
    lines = ["".join(rng.choice(letters, rng.integers(1, 600))).strip() + f" {i}" for i in range(3000)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines))
    return spec("text_files", train=str(tmp_path / "corpus.txt"), documents="blank_line")


@pytest.fixture
def request_(corpus):
    return Request(corpus, spec("characters"), shard_size=200_000)


def quiet(line):
    pass


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def opened(dataset, tokenizer=None, **settings):
    return open_data(dataset, tokenizer, **{"seq_len": 61, "global_batch_size": 7, "seed": 3, **settings})


def test_one_worker_and_three_write_the_same_bytes(request_, tmp_path):
    for workers in (1, 3):
        prepare(dataclasses.replace(request_, workers=workers), tmp_path / str(workers), quiet)
    assert files(tmp_path / "1") == files(tmp_path / "3")
    assert len(Store(tmp_path / "1").shards("train")) > 2


@pytest.mark.parametrize("packing", ["windows", "first_fit"])
@pytest.mark.parametrize("shard_size", [200_000, 10**9])
def test_batches_are_those_of_the_plain_dataset(request_, tmp_path, packing, shard_size):
    prepare(dataclasses.replace(request_, shard_size=shard_size), tmp_path / "store", quiet)
    from lmlab.config import build

    plain = opened(build(request_.dataset), build(request_.tokenizer), packing=packing)
    prepared = opened(Prepared(str(tmp_path / "store")), packing=packing)
    assert prepared.vocab == plain.vocab and prepared.train.rows_per_epoch == plain.train.rows_per_epoch
    for k in (0, 5, 10**6):
        assert_same(prepared.train.batch(k), plain.train.batch(k))
    for split in ("valid", "test"):
        one, other = prepared.split(split), plain.split(split)
        assert (len(one), one.targets, one.unknown) == (len(other), other.targets, other.unknown)
        for i in range(len(one)):
            assert_same(one.batch(i), other.batch(i))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_tokenizer_comes_with_the_store(request_, tmp_path):
    from lmlab.config import build

    prepare(request_, tmp_path / "store", quiet)
    plain = opened(build(request_.dataset), build(request_.tokenizer))
    prepared = opened(Prepared(str(tmp_path / "store")))
    assert prepared.tokenizer.to_json() == plain.tokenizer.to_json()
    np.testing.assert_array_equal(prepared.text_tables.bytes, plain.text_tables.bytes)
    with pytest.raises(ConfigError, match=r"leave experiment.tokenizer unset"):
        opened(Prepared(str(tmp_path / "store")), build(request_.tokenizer))


def test_nothing_is_copied_but_the_rows_of_a_batch(request_, tmp_path):
    prepare(request_, tmp_path / "several", quiet)
    prepare(dataclasses.replace(request_, shard_size=10**9), tmp_path / "one", quiet)
    (one,) = Prepared(str(tmp_path / "one")).split("train")
    (several,) = Prepared(str(tmp_path / "several")).split("train")
    assert isinstance(one.ids, np.memmap) and isinstance(several.ids, Joined)
    assert all(isinstance(part, np.memmap) for part in several.ids.parts)
    np.testing.assert_array_equal(several.ids[:], one.ids)
    from lmlab.data.features import Setting, stream

    rows = stream.tokens_to_tokens((one,), Setting(seq_len=61), True)
    assert np.shares_memory(rows.ids, one.ids)
    batch = rows.gather(np.arange(3))
    assert not any(np.shares_memory(values, one.ids) for values in batch.values())


def test_the_fingerprint_names_the_contents_and_not_the_shards(request_, tmp_path):
    changed = {
        "a": {}, "b": {"shard_size": 10**9, "workers": 2}, "c": {"max_examples": 50},
        "d": {"tokenizer": spec("bytes")},
    }  # fmt: skip
    prints = {}
    for name, what in changed.items():
        prepare(dataclasses.replace(request_, **what), tmp_path / name, quiet)
        prints[name] = Prepared(str(tmp_path / name)).fingerprint()
    assert prints["a"] == prints["b"]
    assert prints["a"] != prints["c"] and prints["a"] != prints["d"]
    assert prints["c"]["splits"]["train"]["documents"] == 50


def test_the_digest_of_the_texts_is_the_plain_datasets_own(request_, tmp_path):
    from lmlab.config import build

    prepare(request_, tmp_path / "store", quiet)
    splits = Prepared(str(tmp_path / "store")).fingerprint()["splits"]
    for split, facts in build(request_.dataset).fingerprint().items():
        found = {"documents": splits[split]["documents"], "bytes": splits[split]["bytes"]}
        assert {**found, "sha256": splits[split]["text_sha256"]} == facts


def test_a_second_call_changes_nothing(request_, tmp_path):
    prepare(request_, tmp_path / "store", quiet)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    said = []
    prepare(request_, tmp_path / "store", said.append)
    assert said == [f"{tmp_path / 'store'}: already prepared; every file is checked"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(request_, tmp_path):
    prepare(request_, tmp_path / "store", quiet)
    with pytest.raises(ConfigError, match=r"tokenizer\.name: characters → bytes"):
        prepare(dataclasses.replace(request_, tokenizer=spec("bytes")), tmp_path / "store", quiet)


def test_a_corpus_that_changed_meanwhile_is_refused(request_, tmp_path):
    prepare(request_, tmp_path / "store", quiet)
    (tmp_path / "corpus.txt").write_text((tmp_path / "corpus.txt").read_text() + "\n\nmore of it")
    with pytest.raises(DataError, match=r"the corpus has changed since .* was begun: its \w+ split"):
        prepare(request_, tmp_path / "store", quiet)


def test_a_document_that_cannot_be_encoded_is_named_whoever_encodes_it(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(9)) + "nul \0\n")
    corpus = spec("text_files", train=str(tmp_path / "a.txt"), documents="line", valid_share=0.0, test_share=0.0)
    for workers in (1, 2):
        request = Request(corpus, spec("bytes"), splits=("train",), workers=workers)
        with pytest.raises(DataError, match=r"a\.txt:10: byte 4 is NUL"):
            prepare(request, tmp_path / str(workers), quiet)
        with pytest.raises(DataError, match="is not finished"):
            Prepared(str(tmp_path / str(workers))).split("train")


def test_a_split_without_documents_is_refused_or_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("one document")
    corpus = spec("text_files", train=str(tmp_path / "a.txt"), valid_share=0.0, test_share=0.0)
    with pytest.raises(DataError, match=r"no documents in the split 'valid'. Leave it out with --splits"):
        prepare(Request(corpus, spec("bytes")), tmp_path / "store", quiet)
    prepare(Request(corpus, spec("bytes"), splits=("train",)), tmp_path / "other", quiet)
    with pytest.raises(DataError, match="no split 'valid' was prepared; there is train"):
        Prepared(str(tmp_path / "other")).split("valid")


def test_ids_cannot_be_prepared(tmp_path):
    with pytest.raises(ConfigError, match="'random_tokens' yields ids: there is nothing to prepare"):
        prepare(Request(spec("random_tokens"), spec("bytes")), tmp_path / "store", quiet)


EXAMPLES = {
    LabelledText: [LabelledText(f"text {i}", "ab"[i % 2], "é\n" if i % 3 else None, f"a:{i}") for i in range(40)],
    TextPair: [TextPair(f"text {i}", "" if i == 3 else f"target {i}") for i in range(40)],
    TaggedText: [TaggedText(("to", f"{i}"), ("O", "B-x"), "ask" if i % 2 else None) for i in range(40)],
    Question: [
        Question("who?", f"it was {i}", (f"{i}",) if i % 3 else (), (7,) if i % 3 else (), source=f"{i}")
        for i in range(40)
    ],
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_examples_that_are_no_stream_come_back_as_they_were(tmp_path, kind, own_catalogue):
    from lmlab.registry import datasets

    @datasets.register("listed")
    class Listed:
        """Examples of a list."""

        example = kind
        labels, tags = ("a", "b"), ("B-x", "O")

        def split(self, name):
            return EXAMPLES[kind][{"train": slice(0, 30), "valid": slice(30, 35), "test": slice(35, 40)}[name]]

        def fingerprint(self):
            return {}

    request = Request(spec("listed"), spec("bytes"), shard_size=500)
    prepare(request, tmp_path / "store", quiet)
    prepare(request, tmp_path / "again", quiet)
    assert files(tmp_path / "store") == files(tmp_path / "again")
    found = PreparedExamples(str(tmp_path / "store"))
    assert found.example is kind and (found.labels, found.tags) == (("a", "b"), ("B-x", "O"))
    for split in ("train", "valid", "test"):
        examples, expected = found.split(split), Listed().split(split)
        assert list(examples) == expected and len(examples) == len(expected)
        assert [examples[i] for i in (2, 0, -1)] == [expected[i] for i in (2, 0, -1)]
        assert list(examples[1:4]) == expected[1:4]
    with pytest.raises(ConfigError, match=r"holds examples: read it with experiment.dataset = @prepared_examples"):
        Prepared(str(tmp_path / "store")).split("train")


def test_texts_can_be_kept_as_examples(request_, tmp_path):
    from lmlab.config import build

    prepare(dataclasses.replace(request_, examples=True), tmp_path / "store", quiet)
    found = PreparedExamples(str(tmp_path / "store"))
    assert tuple(found.split("valid")) == build(request_.dataset).split("valid")
    plain, prepared = opened(build(request_.dataset), build(request_.tokenizer)), opened(found)
    assert_same(prepared.train.batch(4), plain.train.batch(4))


def test_the_store_is_described_by_its_manifest(request_, tmp_path):
    path = prepare(request_, tmp_path / "store", quiet)
    manifest = json.loads(path.read_text())
    train = manifest["splits"]["train"]
    for key in ("documents", "ids", "bytes"):
        assert train[key] == sum(shard[key] for shard in train["shards"])
    assert manifest["configuration"]["dataset"]["name"] == "text_files"
    stream = b"".join((tmp_path / "store" / f"train-{n:05}.ids").read_bytes() for n in range(len(train["shards"])))
    ids = np.frombuffer(stream, manifest["dtype"])
    assert len(ids) == train["ids"] and np.count_nonzero(ids == 0) == train["documents"] + 1


@pytest.mark.parametrize("packing", ["windows", "first_fit"])
def test_masked_models_read_a_store_as_they_read_its_texts(request_, tmp_path, packing):
    from lmlab.config import build
    from lmlab.contracts import MaskableBatch

    request = dataclasses.replace(request_, tokenizer=spec("bytes", specials=("mask",)))
    prepare(request, tmp_path / "store", quiet)
    settings = {"packing": packing, "reads": MaskableBatch}
    plain = opened(build(request.dataset), build(request.tokenizer), **settings)
    assert_same(opened(Prepared(str(tmp_path / "store")), **settings).train.batch(3), plain.train.batch(3))
    prepare(request_, tmp_path / "no_mask", quiet)
    with pytest.raises(ConfigError, match="the tokenizer has no id for 'mask'"):
        _ = opened(Prepared(str(tmp_path / "no_mask")), **settings).train


def test_stores_of_different_tokenizers_are_not_mixed(request_, tmp_path):
    from lmlab.data.datasets.mixture import Mixture

    for name, tokenizer in (("a", "bytes"), ("b", "bytes"), ("c", "characters")):
        prepare(dataclasses.replace(request_, tokenizer=spec(tokenizer)), tmp_path / name, quiet)
    a, b, c = (Prepared(str(tmp_path / name)) for name in "abc")
    assert opened(Mixture((a, b), (1.0, 1.0))).tokenizer.vocab_size == 256
    with pytest.raises(ConfigError, match="prepared, prepared were made with different tokenizers"):
        opened(Mixture((a, c), (1.0, 1.0)))
