"""Edit distances against the definition, and error rates as totals over totals."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.evaluation.metrics.sequences import SequenceErrors, edit_distance

SHORT = st.text("abc", max_size=6)


def by_definition(one, other):
    @functools.cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        same = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(one), len(other))


@given(SHORT, SHORT)
def test_the_distance_is_that_of_the_definition(one, other):
    assert edit_distance(one, other) == by_definition(one, other)


def test_the_rate_is_edits_over_all_reference_units():
    totals = SequenceErrors("phoneme")
    totals.add([["K", "AE", "T"], ["D", "AO", "G", "Z"]], [[["K", "AE", "T"]], [["D", "AO", "G"]]])
    assert totals.result() == {"phoneme_error_rate": 1 / 6, "sequence_exact_match": 1 / 2}


def test_the_nearest_of_several_references_counts():
    totals = SequenceErrors("phoneme")
    references = [["T", "AH", "M", "EY", "T", "OW"], ["T", "AH", "M", "AA", "T", "OW"]]
    totals.add([["T", "AH", "M", "AA", "T", "OW"]], [references])
    assert totals.result() == {"phoneme_error_rate": 0, "sequence_exact_match": 1}


def test_a_rate_may_be_above_1():
    totals = SequenceErrors()
    totals.add([["a", "b", "c"]], [[["d"]]])
    assert totals.result()["word_error_rate"] == 3


def test_a_text_in_place_of_its_words_is_refused():
    with pytest.raises(ValueError, match="give its words"):
        SequenceErrors().add(["a b"], [[["a", "b"]]])
    with pytest.raises(ValueError, match="sequence of references"):
        SequenceErrors().add([["a"]], [[]])
