"""Several arrays read as one: every way of asking gives what their concatenation gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.prepared.joined import Joined, joined

PARTS = [np.arange(5, dtype=np.uint16), np.array([], np.uint16), np.arange(100, 103, dtype=np.uint16)]
WHOLE = np.concatenate(PARTS)


@given(st.lists(st.integers(-8, 7), max_size=9))
def test_places_give_what_the_concatenation_gives(places):
    asked = np.array(places, np.int64)
    found = Joined(PARTS)[asked]
    np.testing.assert_array_equal(found, WHOLE[asked])
    assert found.dtype == np.uint16


@given(st.slices(8))
def test_slices_give_what_the_concatenation_gives(part):
    np.testing.assert_array_equal(Joined(PARTS)[part], WHOLE[part])


def test_rows_of_places_keep_their_shape():
    places = np.array([[0, 7, 4], [5, 5, 1]])
    np.testing.assert_array_equal(Joined(PARTS)[places], WHOLE[places])
    assert Joined(PARTS)[7] == 102 and np.asarray(Joined(PARTS)).tolist() == WHOLE.tolist()


def test_what_is_added_to_each_part():
    found = Joined(PARTS, add=[0, 10, 1000])
    np.testing.assert_array_equal(found[:], [0, 1, 2, 3, 4, 1100, 1101, 1102])
    assert found[np.array([5, 0])].tolist() == [1100, 0] and found.dtype == np.int64


def test_inside_one_part_nothing_is_copied():
    assert np.shares_memory(Joined(PARTS)[1:4], PARTS[0])
    assert joined(PARTS[:1]) is PARTS[0]
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(Joined(PARTS), copy=False)


@pytest.mark.parametrize("place", [8, -9])
def test_a_place_outside_is_an_error(place):
    with pytest.raises(IndexError):
        Joined(PARTS)[np.array([place])]
