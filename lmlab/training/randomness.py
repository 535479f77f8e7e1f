"""Where every random number of a run comes from: a pure function of (seed, stream, step, row).

Nothing else in the program draws random numbers, so a step can be run again, on other
devices, and draw the same.
"""

from __future__ import annotations

import zlib

import jax
from jax import Array
from jaxtyping import Int, Key

INIT = "init"
"""The stream of fresh parameters (step 0 only)."""
STEP = "step"
"""The stream of training: dropout and masks, one key per row."""
GENERATION = "generation"
"""The stream of sampling text."""
EVALUATION = "evaluation"
"""The stream of evaluators that draw."""


def stream_key(seed: int | Int[Array, ""], stream: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The key of a named stream at a step; `seed` and `step` may be tracers."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode())), step)


def noise_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key of a step's noisy parameters, from the step's own; rows, whose keys are folded as well, are fewer."""
    return jax.random.fold_in(key, zlib.crc32(b"parameters"))


def row_keys(key: Key[Array, ""], rows: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per row, from the row's position in the *global* batch: the same however the batch is split."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
