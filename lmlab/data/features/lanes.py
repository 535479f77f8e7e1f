"""Windows for models that carry their state from one to the next: lanes of the stream, read side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmlab.data.features.rows import Batch
from lmlab.data.order import InOrder

if TYPE_CHECKING:
    from lmlab.data.features.stream import Windows


class Lanes:
    """Windows in the order of truncated back-propagation through time: batch i goes on, row by row, from batch i - 1.

    The windows are dealt out to B lanes, each of them one part of the stream; batch i holds window i of every lane.
    `fresh` is true for a row that goes on from none: in the first batch of an epoch, and where another stream begins.
    The layout is that of Zaremba et al. (2014, arXiv:1409.2329, section 4), AWD-LSTM (arXiv:1708.02182) and
    Transformer-XL (arXiv:1901.02860).

    Example (2 lanes; a stream of the windows a to g, of which g, the tail, is not full; - is padding of weight 0):
      training    a d    b e    c f           # g is left out, and so would be a window that no lane has room for
      evaluation  a e    b f    c g    d -
      fresh       1 1    0 0    0 0    0 0

    Args:
      windows: what is dealt out.
      lanes: rows of a batch, B.
      training: leave out windows that do not fill a place in every lane; else lanes end with padding.
    """

    def __init__(self, windows: Windows, lanes: int, training: bool) -> None:
        self._windows, self._lanes = windows, lanes
        self._steps = len(windows) // lanes if training else -(-len(windows) // lanes)
        self.ids = windows.ids
        self.targets = len(self) * windows.seq_len if training else windows.targets
        self.notes = {"padding": 1 - self.targets / max(len(self) * windows.seq_len, 1)}
        if training and len(windows) > len(self):
            self.notes["windows left out"] = len(windows) - len(self)

    def __len__(self) -> int:
        return self._steps * self._lanes

    def order(self) -> InOrder:
        """The order of training, the same in every epoch."""
        return InOrder(len(self))

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `targets` and `weights`, each (B, T), and `fresh` (B,)."""
        step, lane = np.divmod(rows, self._lanes)
        window = lane * self._steps + step
        there = window < len(self._windows)
        batch = self._windows.gather(window[there])
        padded = {name: np.zeros((len(rows), *values.shape[1:]), values.dtype) for name, values in batch.items()}
        for name, values in batch.items():
            padded[name][there] = values
        return {**padded, "fresh": (step == 0) | np.isin(window, self._windows.beginnings)}
