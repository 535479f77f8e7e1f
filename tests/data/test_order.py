"""The order of training rows: a permutation per epoch, random enough, the same wherever it is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmlab.data.order import Order


@given(st.integers(1, 200), st.integers(-(2**70), 2**70), st.integers(0, 10**9))
def test_every_epoch_holds_every_row_once(rows, seed, epoch):
    found = Order(rows, seed)[range(epoch * rows, (epoch + 1) * rows)]
    assert sorted(found.tolist()) == list(range(rows))


@given(st.integers(1, 50), st.integers(0, 300), st.integers(1, 120))
def test_a_place_holds_the_same_row_however_it_is_asked_for(rows, start, count):
    order = Order(rows, 7)
    one_by_one = [int(order[range(i, i + 1)][0]) for i in range(start, start + count)]
    assert order[range(start, start + count)].tolist() == one_by_one


def test_epochs_and_seeds_have_different_orders():
    first, second = Order(101, 3)[range(101)], Order(101, 3)[range(101, 202)]
    other, negative = Order(101, 4)[range(101)], Order(101, -3)[range(101)]
    orders = {tuple(order.tolist()) for order in (first, second, other, negative)}
    assert len(orders) == 4
    # The next seed's first epoch is not this seed's second one, as it is where epoch and seed are added.
    assert not np.array_equal(second, other)


@pytest.mark.parametrize("rows", [997, 40_009, 1_000_003])
def test_neighbouring_places_hold_unrelated_rows(rows):
    found = Order(rows, 11)[range(min(rows, 20_000))] / rows
    for lag in (1, 2, 3, 8, 32):
        assert abs(np.corrcoef(found[lag:], found[:-lag])[0, 1]) < 4 / np.sqrt(len(found))
    assert stats.kstest(found, "uniform").pvalue > 1e-4


def test_every_row_comes_first_equally_often():
    rows, epochs = 7, 7_000
    order = Order(rows, 5)
    first = [int(order[range(epoch * rows, epoch * rows + 1)][0]) for epoch in range(epochs)]
    assert stats.chisquare(np.bincount(first, minlength=rows)).pvalue > 1e-4


def test_all_orders_of_four_rows_come_up_about_equally_often():
    order = Order(4, 9)
    seen = np.unique([order[range(4 * e, 4 * e + 4)] for e in range(4_800)], axis=0, return_counts=True)[1]
    assert len(seen) == 24 and stats.chisquare(seen).pvalue > 1e-4
