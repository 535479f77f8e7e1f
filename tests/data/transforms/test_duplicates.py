"""Duplicates: exact ones against a set, near ones against all pairs."""

import random

from lmlab.data.transforms.duplicates import DropDuplicates, DropNearDuplicates, jaccard, shingles
from lmlab.examples import LabelledText, Text, TextPair


def test_the_first_of_exact_copies_stays():
    texts = [Text("a"), Text("b"), Text("a", "elsewhere"), Text("A"), Text("b")]
    assert DropDuplicates().keep(texts) == [0, 1, 3]
    assert DropDuplicates().keep([LabelledText("a", "x"), LabelledText("a", "y"), LabelledText("a", "x", "b")]) == [
        0,
        2,
    ]
    assert DropDuplicates().keep([TextPair("a", "x"), TextPair("a", "y")]) == [0, 1]


def variants(seed, originals=40):
    """Texts and edited copies of them, more or less near."""
    rng = random.Random(seed)
    texts = []
    for _ in range(originals):
        words = [f"w{rng.randint(0, 300)}" for _ in range(rng.randint(20, 90))]
        for edits in (0, 1, 2, 5, 12):
            changed = list(words)
            for _ in range(edits):
                changed[rng.randrange(len(words))] = "other"
            texts.append(" ".join(changed))
    rng.shuffle(texts)
    return texts


def by_all_pairs(texts, threshold, n):
    def grams(text):
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}

    kept = []
    for place, text in enumerate(texts):
        sets = grams(text)
        if all(len(sets & other) / len(sets | other) < threshold for _, other in kept):
            kept.append((place, sets))
    return [place for place, _ in kept]


def test_near_duplicates_are_those_of_all_pairs():
    for seed in range(3):
        texts = variants(seed)
        expected = by_all_pairs(texts, 0.8, 5)
        assert 40 <= len(expected) < len(texts)
        # A pair at 0.8 is missed once in 2,800 times: none here.
        assert DropNearDuplicates(0.8, words=5).keep([Text(text) for text in texts]) == expected


def test_jaccard_is_that_of_the_sets_of_shingles():
    one, other = shingles("A b c d e f", 3), shingles("a B c d x f", 3)
    assert (len(one), len(other)) == (4, 4)
    assert jaccard(one, other) == 2 / 6
    assert len(shingles("too short", 5)) == len(shingles("", 5)) == 1
