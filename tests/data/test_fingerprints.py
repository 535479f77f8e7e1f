"""Fingerprints: equal or a readable difference."""

from lmlab.data.fingerprints import compare_fingerprints, digest, digest_json


def test_the_difference_names_each_path_with_both_values():
    saved = {"seed": 3, "dataset": {"train": {"documents": 612}, "python": "3.11.7"}, "old": True}
    now = {"seed": 3, "dataset": {"train": {"documents": 613}, "python": "3.12.1"}, "new": {}}
    assert compare_fingerprints(saved, now) == (
        "  dataset.python: 3.11.7 → 3.12.1\n"
        "  dataset.train.documents: 612 → 613\n"
        "  new: (absent) → {}\n"
        "  old: true → (absent)"
    )


def test_what_json_makes_equal_is_equal():
    assert compare_fingerprints({"a": [1, 2], "b": None}, {"b": None, "a": (1, 2)}) is None
    assert compare_fingerprints({"a": 1}, {"a": True})


def test_digests_see_the_boundaries_of_parts():
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"]) != digest([b"abc"])
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
