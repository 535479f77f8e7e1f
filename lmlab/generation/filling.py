"""What stands in the place of masks: by an encoder that was trained to say so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

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


def gibbs(
    model: BidirectionalLM, tokens: Int[Array, "B T"], keys: Key[Array, " B"], *, mask: int, sweeps: int
) -> Int[Array, "B T"]:
    """The tokens with all masks filled by Gibbs sampling: one token after the other, given all others.

    A masked language model as a random field (Wang & Cho 2019, arXiv:1902.04094, section 3). Each sweep visits the
    masks of a row once, in an order of its own; what the first sweep has not reached yet is still masked. If the
    model's laws are those of one distribution, its law is where many sweeps lead.

    Args:
      model, tokens, mask: as of `candidates`.
      keys: one random key per row.
      sweeps: how often each token is drawn, at least 1.
    """
    asked = tokens == mask
    count = asked.sum(1)

    def visit(number: Array, tokens: Array) -> Array:
        sweep, turn = number // most, number % most

        def place(key: Array, asked: Array) -> Array:
            order = jax.random.uniform(_folded(key, 0, sweep), asked.shape)
            return jnp.argsort(jnp.where(asked, order, 2.0))[turn]

        chosen = jax.vmap(place)(keys, asked)
        here = (jnp.arange(tokens.shape[1]) == chosen[:, None]) & (turn < count)[:, None]
        states = model.encode(jnp.where(here, mask, tokens))
        law = log_probabilities(model.project(jnp.take_along_axis(states, chosen[:, None, None], 1)[:, 0]), mask)
        drawn = jax.vmap(lambda key, law: jax.random.categorical(_folded(key, 1, sweep, turn), law))(keys, law)
        return jnp.where(here, drawn[:, None], tokens)

    most = jnp.max(count)  # of any row: what a row draws is folded from its own sweeps and turns
    return jax.lax.fori_loop(0, sweeps * most, visit, tokens)


def _folded(key: Array, *numbers: int | Array) -> Array:
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key
