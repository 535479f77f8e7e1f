"""Augmentation: what each edit may do, with the frequencies that it promises."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from lmlab.data.transforms.augmentation import RandomDeletion, RandomSwap, Synonyms
from lmlab.data.transforms.backoff_noise import BackoffNoise
from lmlab.errors import DataError
from lmlab.examples import LabelledText, TaggedText, Text, TextPair

WORDS = [f"w{i}" for i in range(997)]
TEXT = Text(" ".join(WORDS))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_words_are_deleted_at_the_rate_and_keep_their_order():
    kept = RandomDeletion(0.3)(TEXT, rng()).text.split()
    assert kept == sorted(kept, key=WORDS.index)
    assert stats.binomtest(len(WORDS) - len(kept), len(WORDS), 0.3).pvalue > 1e-3


def test_one_word_always_stays():
    found = {RandomDeletion(0.999)(Text("one two three"), rng(seed)).text.strip() for seed in range(40)}
    assert found == {"one", "two", "three"}


def test_a_swap_keeps_the_words_and_the_space_between_places():
    found = RandomSwap(0.1)(Text("a b\n\nc  d"), rng()).text
    assert sorted(found.split()) == list("abcd") and found != "a b\n\nc  d"
    assert [len(part) for part in (found[1:2], found[3:5], found[6:8])] == [1, 2, 2] and found[3:5] == "\n\n"
    moved = np.count_nonzero(np.array(RandomSwap(0.1)(TEXT, rng()).text.split()) != np.array(WORDS))
    assert 150 < moved <= 200  # 100 swaps move at most 200 words
    assert RandomSwap(0.0)(TEXT, rng()) == TEXT


def test_tags_go_with_their_words_and_spans_stay_whole():
    words = ("show", "flights", "to", "New", "York", "on", "Monday", "please", "now")
    tags = ("T0", "T1", "T2", "B-city", "I-city", "T5", "B-day", "T7", "T8")
    for seed in range(30):
        swapped = RandomSwap(1.0)(TaggedText(words, tags), rng(seed))
        assert swapped.words[3:5] == ("New", "York") and swapped.words[6] == "Monday"
        assert Counter(zip(swapped.words, swapped.tags, strict=True)) == Counter(zip(words, tags, strict=True))
        fewer = RandomDeletion(0.5)(TaggedText(words, tags), rng(seed))
        assert set(fewer.tags) <= set(tags) | {"B-city"} and len(fewer.words) == len(fewer.tags)
        if "York" in fewer.words and "New" not in fewer.words:
            assert fewer.tags[fewer.words.index("York")] == "B-city"


def test_what_is_to_be_predicted_is_not_augmented():
    pair = RandomDeletion(0.9)(TextPair(TEXT.text, TEXT.text), rng())
    assert pair.target == TEXT.text and len(pair.text) < len(TEXT.text)
    assert RandomDeletion(0.9)(LabelledText("a b c", "x y z"), rng()).label == "x y z"


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "table.tsv").write_text(text)
        return str(tmp_path / "table.tsv")

    return write


def test_synonyms_keep_case_and_punctuation(table):
    synonyms = Synonyms(table("big\tlarge\n\nfast\tquick\n"), rate=1.0)
    assert synonyms(Text('"Big, FAST" (big) bigger'), rng()).text == '"Large, QUICK" (large) bigger'


def test_synonyms_are_drawn_evenly_at_the_rate(table):
    synonyms = Synonyms(table("big\tlarge\thuge\n"), rate=0.5)
    found = Counter(synonyms(Text("big " * 2000), rng()).text.split())
    assert stats.chisquare([found["big"], found["large"], found["huge"]], [1000, 500, 500]).pvalue > 1e-3


@pytest.mark.parametrize("row", ["big", "big\tvery large", "\tlarge", "big\tlarge\t"])
def test_a_malformed_row_is_named(table, row):
    with pytest.raises(DataError, match=r"table\.tsv:2: "):
        Synonyms(table(f"fast\tquick\n{row}\n"))(TEXT, rng())


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"synonyms\.table"):
        Synonyms(str(tmp_path / "none.tsv"))(TEXT, rng())


TRAINING = [Text("a b a c\na d"), Text("a b e")]


def test_unigram_noise_draws_by_frequency():
    noise = BackoffNoise("unigram", rate=0.5).fit(TRAINING)
    found = Counter(noise(Text("x " * 9000), rng()).text.split())
    counts = Counter(["a", "b", "a", "c", "a", "d", "a", "b", "e"])
    assert (
        stats.chisquare([found["x"], *(found[w] for w in counts)], [4500, *(500 * counts[w] for w in counts)]).pvalue
        > 1e-3
    )


def test_kneser_ney_noise_has_the_papers_rates_and_proposals():
    lines = [line.split() for text in TRAINING for line in text.text.split("\n")]
    bigrams = Counter(pair for line in lines for pair in pairwise(line))
    noise = BackoffNoise("bigram", rate=0.6).fit(TRAINING)
    n = 20_000
    for word in "abcde":
        followers = [pair for pair in bigrams if pair[0] == word]
        total = sum(bigrams[pair] for pair in followers)
        changed = sum(other != word for other in noise(Text(f"{word} " * n), rng()).text.split())
        same = sum(pair[1] == word for pair in bigrams) / len(bigrams)  # drawn, but the word that was there
        rate = 0.6 * len(followers) / total * (1 - same) if total else 0
        assert stats.binomtest(changed, n, rate).pvalue > 1e-3 if rate else changed == 0
    drawn = Counter(other for other in noise(Text("b " * n), rng()).text.split() if other != "b")
    before = {word: sum(pair[1] == word for pair in bigrams) for word in "acde"}
    scale = drawn.total() / sum(before.values())
    assert stats.chisquare([drawn[w] for w in before], [before[w] * scale for w in before]).pvalue > 1e-3


def test_blank_noise_and_noise_without_counts():
    found = Counter(BackoffNoise("blank", rate=0.25).fit(TRAINING)(Text("x " * 4000), rng()).text.split())
    assert stats.binomtest(found["_"], 4000, 0.25).pvalue > 1e-3 and found["x"] + found["_"] == 4000
    with pytest.raises(ValueError, match="fitted"):
        BackoffNoise()(TEXT, rng())
    with pytest.raises(DataError, match="no words"):
        BackoffNoise("bigram").fit([Text("one\nword\na\nline")])
