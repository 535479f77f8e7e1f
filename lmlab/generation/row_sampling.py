"""Next tokens of rows that each have sampling numbers of their own: arrays, so that no request compiles anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from lmlab.generation.samplers import EXCLUDED
from lmlab.training.randomness import GENERATION, row_keys, stream_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Float, Int, UInt


class Numbers(NamedTuple):
    """What the tokens of each row are drawn by; the meaning is that of the sampler `sample`.

    Attributes:
      temperature: 0 is greedy.
      top_k: the number of ids or more keeps all.
      top_p: 1 or more keeps all.
      min_p: 0 keeps all.
      seed, choice: a row draws what row `choice` of a `Decoder` draws with this seed.
    """

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    min_p: Float[Array, " B"]
    seed: UInt[Array, " B"]
    choice: Int[Array, " B"]


def drawn(logits: Float[Array, "B V"], numbers: Numbers, place: Int[Array, " B"]) -> Int[Array, " B"]:
    """One id per row, int32; row b depends on `logits[b]`, its own numbers and its own place only.

    Args:
      logits: of the next tokens.
      numbers: of the rows.
      place: where in its row the token will stand.
    """
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    warm = numbers.temperature > 0
    random = jax.lax.cond(warm.any(), lambda: _random(logits, numbers, place), lambda: best)
    return jnp.where(warm, random, best)


def _random(logits: Float[Array, "B V"], numbers: Numbers, place: Int[Array, " B"]) -> Int[Array, " B"]:
    best = jnp.max(logits, axis=-1, keepdims=True)
    tempered = (logits - best) / jnp.maximum(numbers.temperature, jnp.finfo(jnp.float32).tiny)[:, None]
    kept = _restricted(tempered, numbers.top_k < logits.shape[-1], lambda x: keep_top_k(x, numbers.top_k))
    kept = _restricted(kept, numbers.top_p < 1, lambda x: keep_top_p(x, numbers.top_p))
    kept = jnp.where(kept >= jnp.log(numbers.min_p)[:, None], kept, EXCLUDED)
    keys = jax.vmap(lambda seed, choice: row_keys(stream_key(seed, GENERATION), choice[None])[0])
    at = jax.vmap(jax.random.fold_in)(keys(numbers.seed, numbers.choice), place)
    return jax.vmap(jax.random.categorical)(at, kept).astype(jnp.int32)


def _restricted(
    logits: Float[Array, "B V"], which: Bool[Array, " B"], restrict: Callable[[Array], Array]
) -> Float[Array, "B V"]:
    """The logits, restricted in the rows `which`; computed only where there is one."""
    return jax.lax.cond(which.any(), lambda: jnp.where(which[:, None], restrict(logits), logits), lambda: logits)


def keep_top_k(logits: Float[Array, "B V"], k: Int[Array, " B"]) -> Float[Array, "B V"]:
    """The logits, at most 0, with all but the `k` greatest of each row excluded (equals of the last one stay)."""
    return _keep(logits, jnp.ones_like(logits), k.astype(jnp.float32))


def keep_top_p(logits: Float[Array, "B V"], p: Float[Array, " B"]) -> Float[Array, "B V"]:
    """The logits, at most 0, with all but the fewest most probable tokens of each row that reach mass `p` excluded."""
    return _keep(logits, jax.nn.softmax(logits, axis=-1), p)


def _keep(logits: Float[Array, "B V"], weights: Float[Array, "B V"], amount: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Excludes a token where the greater ones weigh `amount` or more.

    The edge is found bit by bit, as numbers that are not negative are ordered as their bits are: 31 sums over the
    vocabulary are several times as fast on a CPU as sorting it.
    """
    depth = jax.lax.bitcast_convert_type(jnp.abs(logits), jnp.int32)

    def longer(i: int | Array, edge: Int[Array, " B"]) -> Int[Array, " B"]:
        further = edge | jax.lax.shift_left(jnp.int32(1), jnp.int32(30) - i)
        greater = jnp.where(depth < further[:, None], weights, 0).sum(-1)
        return jnp.where(greater < amount, further, edge)

    edge = jax.lax.fori_loop(0, 31, longer, jnp.zeros(len(logits), jnp.int32))
    return jnp.where(depth <= edge[:, None], logits, EXCLUDED)
