"""First-fit packing, against a plain version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.features import packing
from lmlab.data.features.packing import first_fit


def plain_first_fit(lengths, capacity):
    room, rows, columns = [], [], []
    for length in lengths:
        row = next((i for i, left in enumerate(room) if left >= length), len(room))
        if row == len(room):
            room.append(capacity)
        rows.append(row)
        columns.append(capacity - room[row])
        room[row] -= length
    return rows, columns


@given(st.lists(st.integers(1, 13), max_size=80))
def test_it_is_first_fit(lengths):
    rows, columns = first_fit(np.array(lengths, int), 13)
    assert (rows.tolist(), columns.tolist()) == plain_first_fit(lengths, 13)


def test_the_example_of_the_docstring():
    rows, columns = first_fit(np.array([3, 2, 1, 2]), 4)
    assert rows.tolist() == [0, 1, 0, 1] and columns.tolist() == [0, 0, 3, 2]


@pytest.mark.parametrize("open_rows", [1, 3])
def test_with_few_open_rows_no_row_is_overfull_and_no_piece_overlaps(monkeypatch, open_rows):
    monkeypatch.setattr(packing, "OPEN_ROWS", open_rows)
    lengths = np.random.default_rng(0).integers(1, 12, 500)
    rows, columns = first_fit(lengths, 11)
    used = np.zeros((rows.max() + 1, 11), int)
    for row, column, length in zip(rows, columns, lengths, strict=True):
        used[row, column : column + length] += 1
    assert used.max() == 1 and used.sum() == lengths.sum()
    assert set(rows) == set(range(rows.max() + 1))
