"""First-fit packing of pieces into rows: deterministic, in the order of the pieces."""

from __future__ import annotations

import numpy as np

OPEN_ROWS = 256


def first_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and first column of every piece: each goes into the first open row with room for it.

    At most `OPEN_ROWS` rows are open; when one more is needed, the one with the least room is closed, which
    keeps the cost linear in the pieces. Below that number this is first fit as in the textbook.

    Example (capacity 4): lengths 3 2 1 2 → rows 0 1 0 1, columns 0 0 3 2.

    Args:
      lengths: tokens of each piece, all within [1, capacity].
      capacity: tokens of a row.
    """
    room = np.zeros(OPEN_ROWS, np.int64)
    row_of = np.full(OPEN_ROWS, -1)
    rows, columns = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    opened = used = 0
    for piece, length in enumerate(lengths.tolist()):
        fits = room[:used] >= length
        slot = int(fits.argmax()) if used else 0
        if not used or not fits[slot]:
            if used == OPEN_ROWS:  # the slots stay in the order in which their rows were opened
                closed = int(room.argmin())
                room[closed:-1], row_of[closed:-1] = room[closed + 1 :], row_of[closed + 1 :]
                used -= 1
            slot, used = used, used + 1
            room[slot], row_of[slot] = capacity, opened
            opened += 1
        rows[piece], columns[piece] = row_of[slot], capacity - room[slot]
        room[slot] -= length
    return rows, columns
