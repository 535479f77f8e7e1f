"""Texts that a causal model writes while a loss is computed: drawn, completed from their beginnings, or relaxed.

Every row draws with keys of its own, one for each place: it does not depend on the rows beside it. The model is read
through its cache, one token at a time, by loops that are compiled once whatever the length is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import AdversarialLM, Cache, CausalLM

M = TypeVar("M", bound=CausalLM)
Feed = Literal["relaxed", "drawn"]


def frozen(model: M) -> M:
    """The model with parameters that no gradient reaches."""
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, state))


def drawn(model: CausalLM, first: Int[Array, " B"], length: int, keys: Key[Array, " B"]) -> Int[Array, "B N"]:
    """N = `length` ids that each row draws from the model's law, after reading `first`."""

    def step(at: tuple[Array, Cache], place: Array) -> tuple[tuple[Array, Cache], Array]:
        logits, cache = _read(model, *at)
        token = _draw(logits, keys, place)
        return (token, cache), token

    begun = first, model.init_cache(len(first), length)
    return jax.lax.scan(step, begun, jnp.arange(length))[1].T


def values(
    model: CausalLM,
    first: Int[Array, " B"],
    text: Int[Array, "B N"],
    keys: Key[Array, " B"],
    reward: Callable[[Int[Array, "B N"]], Float[Array, " B"]],
    *,
    rollouts: int,
    begin: int,
) -> Float[Array, "B M"]:
    """The mean reward of texts that begin as `text` does and are completed by the model: Monte-Carlo roll-outs.

    One beginning after the other, all of its `rollouts` completions of all rows at once.

    Args:
      model: the roll-out policy.
      first: what each row reads before its text.
      text: what is completed.
      keys: one for each row, not those that `text` was drawn with.
      reward: of whole texts.
      rollouts: completions of each beginning.
      begin: tokens of the shortest beginning; the longest has N - 1, so that M = N - begin.
    """
    length = text.shape[1]
    inputs = jnp.concatenate((first[:, None], text[:, :-1]), 1)
    cache = model.init_cache(len(first), length)
    if begin:
        _, cache = model.hidden(inputs[:, :begin], cache=cache)

    def of_beginning(cache: Cache, at: tuple[Array, Array]) -> tuple[Cache, Array]:
        token, place = at
        logits, cache = _read(model, token, cache)

        def once(turn: Array) -> Array:
            return reward(_completed(model, text, place, logits, cache, _folded(_folded(keys, place), turn)))

        return cache, jax.vmap(once)(jnp.arange(rollouts)).mean(0)

    found = jax.lax.scan(of_beginning, cache, (inputs[:, begin:].T, jnp.arange(begin, length)))[1]
    return found.T


def relaxed(
    model: AdversarialLM,
    first: Int[Array, " B"],
    length: int,
    keys: Key[Array, " B"],
    temperature: Float[Array, ""],
    feed: Feed,
) -> Float[Array, "B N V"]:
    """N = `length` relaxed one-hots per row, softmax((logits + Gumbel noise) / temperature), differentiable.

    (Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712.) The largest entry of each is at an id
    that is drawn from the model's law, whatever the temperature is.

    Args:
      model: reads rows of probabilities, too.
      first: what each row reads first.
      length: N.
      keys: one for each row.
      temperature: near 0 the rows are one-hot.
      feed: what is read next: the `relaxed` row, so that the gradient goes through all later tokens (Kusner &
        Hernández-Lobato 2016), or the id that was `drawn` (RelGAN, Nie et al. 2019).
    """
    cache = model.init_cache(len(first), length)
    vocab = jax.eval_shape(lambda: _read(model, first, cache)[0]).shape[-1]

    def step(at: tuple[Array, Cache], place: Array) -> tuple[tuple[Array, Cache], Array]:
        logits, cache = _read(model, *at)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (vocab,)))(_folded(keys, place))
        row = jax.nn.softmax((logits + noise) / temperature)
        following = row if feed == "relaxed" else (logits + noise).argmax(-1).astype(jnp.int32)
        return (following, cache), row

    begin = jax.nn.one_hot(first, vocab) if feed == "relaxed" else first.astype(jnp.int32)
    return jax.lax.scan(step, (begin, cache), jnp.arange(length))[1].swapaxes(0, 1)


def _completed(
    model: CausalLM, text: Int[Array, "B N"], place: Array, logits: Float[Array, "B V"], cache: Cache, keys: Array
) -> Int[Array, "B N"]:
    """`text` with the tokens from `place` on drawn anew; `cache` has read those before, `logits` are of that place."""

    def put(text: Array, logits: Array, place: Array) -> tuple[Array, Array]:
        token = _draw(logits, keys, place)
        return jax.lax.dynamic_update_slice_in_dim(text, token[:, None], place, 1), token

    def step(place: Array, at: tuple[Array, Array, Cache]) -> tuple[Array, Array, Cache]:
        text, token, cache = at
        logits, cache = _read(model, token, cache)
        return *put(text, logits, place), cache

    text, token = put(text, logits, place)
    return jax.lax.fori_loop(place + 1, text.shape[1], step, (text, token, cache))[0]


def _read(model: CausalLM, token: Any, cache: Cache) -> tuple[Float[Array, "B V"], Cache]:
    """The logits after one token more of each row, (B,) ids or (B, V) probabilities."""
    hidden, cache = model.hidden(token[:, None], cache=cache)
    return model.project(hidden[:, 0]), cache


def _draw(logits: Float[Array, "B V"], keys: Key[Array, " B"], place: Array) -> Int[Array, " B"]:
    return jax.vmap(jax.random.categorical)(_folded(keys, place), logits).astype(jnp.int32)


def _folded(keys: Key[Array, " B"], number: Array) -> Key[Array, " B"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
