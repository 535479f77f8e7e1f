"""One LSTM step in NumPy, for the sources that are LSTMs with random parameters."""

from __future__ import annotations

import numpy as np


def step(gates: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hochreiter & Schmidhuber 1997 with a forget gate: h = o·tanh(c), c = f·c + i·g.

    Args:
      gates: before their nonlinearities i, f, o and g side by side, (..., 4·D).
      cell: c before the step, (..., D).

    Returns:
      h and c after it, (..., D), of the type of `gates`.
    """
    width = cell.shape[-1]
    inner = (1 + np.tanh(gates[..., : 3 * width] / 2)) / 2  # the logistic function, without overflow
    entrance, forget, exit_ = (inner[..., k * width : (k + 1) * width] for k in range(3))
    cell = forget * cell + entrance * np.tanh(gates[..., 3 * width :])
    return exit_ * np.tanh(cell), cell


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def draw(logits: np.ndarray, uniform: float) -> int:
    """The id at which the cumulative law of softmax(logits), (V,), exceeds `uniform` in [0, 1)."""
    cumulative = np.cumsum(np.exp(logits - logits.max()), dtype=np.float64)
    return int(cumulative[:-1].searchsorted(uniform * cumulative[-1], side="right"))
