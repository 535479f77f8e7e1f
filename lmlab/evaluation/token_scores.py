"""How probable each token of rows is after those before it: batches of few shapes, few places' logits at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.nn.functional import ModelDef

ROWS = 16
"""Rows that are read together."""
NARROWEST = 16
"""Places of the narrowest batch; wider ones are 1 or 1.5 times a power of two."""
CHUNK = 16
"""Places of each row whose logits are in memory at once. It divides every width that is not a model's own limit."""


class Scored(NamedTuple):
    """What a model makes of one row of n tokens.

    Attributes:
      log_p: of each token but the first, after all before it, in nats; (n - 1,) float32.
      greedy: whether it is the most probable one there; (n - 1,).
    """

    log_p: np.ndarray
    greedy: np.ndarray


class TokenScorer:
    """Scores rows of ids with a causal model. A row's numbers do not depend on the rows beside it.

    Args:
      model: the definition of a causal model.
      limit: the most tokens that it can read, or None.
    """

    def __init__(self, model: ModelDef[Any], limit: int | None = None) -> None:
        self._limit = limit
        self._read = jax.jit(partial(_scores, model))

    def __call__(self, params: Mapping[str, Array], rows: Sequence[Int[np.ndarray, " n"]]) -> list[Scored]:
        """The scores of each row of at least one token, in their order; at most `limit` + 1 tokens a row."""
        found: list[Any] = [None] * len(rows)
        for chosen, ids in batches_by_length(rows, self._limit):
            log_p, greedy = jax.device_get(self._read(params, ids))
            for b, i in enumerate(chosen):
                count = len(rows[i]) - 1
                found[i] = Scored(log_p[b, :count], greedy[b, :count])
        return found


def batches_by_length(
    rows: Sequence[Int[np.ndarray, " n"]], limit: int | None = None
) -> Iterator[tuple[list[int], Int[np.ndarray, "B T1"]]]:
    """Rows of like length together, the longest first: which they are, and their ids with zeros behind.

    All but the last id of a row are read, so that T1 is one more than a width: see `width_for`.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for first in range(0, len(order), ROWS):
        chosen = order[first : first + ROWS]
        ids = np.zeros((ROWS, width_for(len(rows[chosen[0]]) - 1, limit) + 1), np.int32)
        for b, i in enumerate(chosen):
            ids[b, : len(rows[i])] = rows[i]
        yield chosen, ids


def width_for(count: int, limit: int | None = None) -> int:
    """The width of the batch that a row of so many places stands in: 16, 24, 32, 48, 64, ..., at most the limit."""
    width = NARROWEST
    while width < count:
        width = width * 3 // 2 if width & (width - 1) == 0 else width // 3 * 4
    return width if limit is None else min(width, limit)


def _scores(
    model: ModelDef[Any], params: Mapping[str, Array], ids: Int[Array, "B T1"]
) -> tuple[Float[Array, "B T"], Array]:
    """Log p of ids[:, 1:], and where each is the most probable."""
    bound = model.bind(params)
    hidden, targets = bound.hidden(ids[:, :-1])[0], ids[:, 1:]
    rows, places = targets.shape
    behind = -places % CHUNK
    hidden = jnp.pad(hidden, ((0, 0), (0, behind), (0, 0))).reshape(rows, -1, CHUNK, hidden.shape[-1])
    chunks = hidden.swapaxes(0, 1), jnp.pad(targets, ((0, 0), (0, behind))).reshape(rows, -1, CHUNK).swapaxes(0, 1)

    def score(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        states, wanted = chunk
        logits = bound.project(states).astype(jnp.float32)
        there = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
        return there - jax.nn.logsumexp(logits, axis=-1), logits.argmax(-1) == wanted

    log_p, greedy = (x.swapaxes(0, 1).reshape(rows, -1)[:, :places] for x in jax.lax.map(score, chunks))
    return log_p, greedy
