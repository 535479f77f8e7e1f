"""Texts of a masked diffusion model: from all masks to none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Key

from lmlab.contracts import BidirectionalLM
from lmlab.losses.masked_diffusion import log_probabilities


def unmask(
    model: BidirectionalLM, tokens: Int[Array, "B T"], keys: Key[Array, " B"], *, mask: int, steps: int
) -> Int[Array, "B T"]:
    """Ancestral sampling of absorbing diffusion with alpha_t = 1 - t (Sahoo et al. 2024, arXiv:2406.07524, equation 7).

    From time t to time s a masked token is drawn from the model's law with probability (t - s) / t, and then stays.
    Tokens that are drawn in the same step do not know of each other, so that the law of the texts comes the nearer to
    the model's own the more steps there are than tokens.

    Args:
      model: says which token stands in the place of a mask.
      tokens: ids, with the mask wherever something is to be written; others are given.
      keys: one random key per row.
      mask: the id of the mask.
      steps: of equal length, from time 1 to time 0.

    Returns:
      The tokens without a mask.
    """

    def step(number: Array, tokens: Array) -> Array:
        log_p = log_probabilities(model.project(model.encode(tokens)), mask)
        share = 1 / (steps - number)  # (t - s) / t, of which the last is 1

        def row(key: Array, ids: Array, log_p: Array) -> Array:
            choosing, drawing = jax.random.split(jax.random.fold_in(key, number))
            chosen = (ids == mask) & (jax.random.uniform(choosing, ids.shape) < share)
            return jnp.where(chosen, jax.random.categorical(drawing, log_p), ids)

        return jax.vmap(row)(keys, tokens, log_p)

    return jax.lax.fori_loop(0, steps, step, tokens)
