"""ListOps: every label by an evaluator that reads the text, the shapes of the two published variants."""

import statistics

import pytest

from lmlab.data.generated.listops import ListOps
from lmlab.errors import ConfigError, DataError

OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def value(text):
    """What an expression is worth, its depth, and the numbers of its lists' arguments."""
    symbols = iter(text.split())

    def read(symbol):
        if symbol.isdigit():
            return int(symbol), 1, []
        values, depths, counts = [], [], []
        for following in iter(symbols.__next__, "]"):
            result, depth, inner = read(following)
            values.append(result)
            depths.append(depth)
            counts += inner
        return OPERATORS[symbol](values), 1 + max(depths), [len(values), *counts]

    found = read(next(symbols))
    assert next(symbols, None) is None
    return found


NANGIA_BOWMAN = {"max_depth": 20, "max_args": 5, "min_length": 1, "max_length": 10**6, "distinct": True}


@pytest.fixture(scope="module")
def distinct():
    return ListOps(**NANGIA_BOWMAN, train_examples=1500, valid_examples=200, test_examples=300)


def test_every_expression_of_the_long_range_arena_has_its_value():
    dataset = ListOps()
    assert [len(dataset.split(name)) for name in ("train", "valid", "test")] == [96_000, 2000, 2000]
    for name in ("train", "valid", "test"):
        for example in dataset.split(name)[:15]:
            result, depth, counts = value(example.text)
            assert example.label == str(result)
            assert 500 < len(example.text.split()) < 2000
            assert depth <= 10 and min(counts) >= 2 and max(counts) <= 10


def test_distinct_expressions_have_their_values_and_come_once(distinct):
    splits = [distinct.split(name) for name in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [1500, 200, 300]
    texts = [example.text for split in splits for example in split]
    assert len(set(texts)) == 2000
    for example in splits[0]:
        result, depth, counts = value(example.text)
        assert example.label == str(result) and depth <= 20 and all(2 <= n <= 5 for n in counts)
    digits = [sum(example.text.isdigit() for example in split) for split in splits]
    assert sum(digits) == 10  # three quarters of what is drawn, each of them once
    assert set(distinct.labels) >= {example.label for example in splits[0]}


def test_the_median_of_an_even_number_loses_its_fraction():
    shallow = ListOps(max_depth=2, max_args=2, min_length=4, max_length=4, train_examples=400)
    medians = [example for example in shallow.split("train") if example.text.startswith("[MED")]
    assert len(medians) > 50
    for example in medians:
        first, second = map(int, example.text.split()[1:3])
        assert int(example.label) == (first + second) // 2


def test_no_expression_is_in_two_splits_even_where_there_are_few():
    dataset = ListOps(max_depth=2, max_args=2, min_length=1, max_length=9, train_examples=500)
    train, valid, test = ({e.text for e in dataset.split(name)[:500]} for name in ("train", "valid", "test"))
    assert len(train) < 500 and valid and test
    assert not train & valid and not train & test and not valid & test


def test_no_label_is_frequent_and_expressions_have_about_a_thousand_symbols():
    known = ListOps().known()
    assert 0.12 < known["estimate/majority_accuracy"] < 0.25  # 16.7 % of class 0 in a greater sample
    error = known["estimate/length_symbols_standard_error"]
    assert known["estimate/length_symbols"] == pytest.approx(1025, abs=40 + 4 * error)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="min_length = 9 is above max_length = 5"):
        ListOps(min_length=9, max_length=5)
    with pytest.raises(DataError, match="none had 500 to 600 symbols"):
        ListOps(max_depth=2, min_length=500, max_length=600).split("train")[0]
    with pytest.raises(DataError, match=r"only 10 distinct expressions\. Ask for fewer"):
        ListOps(max_depth=1, min_length=1, distinct=True).split("train")[0]
