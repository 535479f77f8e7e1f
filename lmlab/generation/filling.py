"""What stands in the place of masks: by an encoder that was trained to say so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from lmlab.contracts import BidirectionalLM
from lmlab.losses.masked_diffusion import log_probabilities


def candidates(
    model: BidirectionalLM, tokens: Int[Array, "B T"], *, mask: int, count: int
) -> tuple[Int[Array, "B T K"], Float[Array, "B T K"]]:
    """The most probable tokens of every position and their probabilities, the most probable first.

    At a position that is no mask, they say what an encoder makes of a token that it sees.

    Args:
      model: says which token stands in the place of a mask.
      tokens: ids, among them masks.
      mask: its id, which is no candidate.
      count: K, at most as many as there are other ids.
    """
    log_p = log_probabilities(model.project(model.encode(tokens)), mask)
    found, ids = jax.lax.top_k(log_p, count)
    return ids, jnp.exp(found)


def mask_predict(model: BidirectionalLM, tokens: Int[Array, "B T"], *, mask: int, steps: int) -> Int[Array, "B T"]:
    """The tokens with all masks filled, those that the model was least sure of once more in each further step.

    Mask-predict (Ghazvininejad et al. 2019, arXiv:1904.09324, section 3.2): of N masks, N (steps - t) / steps are
    masked again before step t, those of the lowest probability. One step takes the most probable token of each.

    Args:
      model, tokens, mask: as of `candidates`.
      steps: how often the model is asked, at least 1.
    """
    asked = tokens == mask
    count = asked.sum(1, keepdims=True)

    def step(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, sure = state
        again = jnp.argsort(jnp.argsort(sure, axis=1), axis=1) < count * (steps - number) // steps
        ids, found = candidates(model, jnp.where(again, mask, tokens), mask=mask, count=1)
        return jnp.where(again, ids[..., 0], tokens), jnp.where(again, found[..., 0], sure)

    # What was given is surer than any probability.
    return jax.lax.fori_loop(0, steps, step, (tokens, jnp.where(asked, -1.0, 2.0)))[0]
