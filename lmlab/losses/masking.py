"""Which tokens a masked language model must find: chosen anew at each step for each row, on the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, Key

from lmlab.errors import ConfigError


class Masked(NamedTuple):
    """What the model reads, and what it is asked."""

    tokens: Int[Array, "B T"]
    chosen: Bool[Array, "B T"]


def mask_id(special_ids: Mapping[str, int]) -> int:
    """The id that stands for what is not shown; ConfigError where the data have none."""
    if "mask" not in special_ids:
        raise ConfigError(
            f"masking needs an id for 'mask'; there are {', '.join(special_ids) or 'no special ids'}. Add 'mask' to "
            "the tokenizer's specials, or choose a dataset of ids that has one, such as hmm_source."
        )
    return special_ids["mask"]


def mask_tokens(
    tokens: Int[Array, "B T"],
    allowed: Bool[Array, "B T"],
    keys: Key[Array, " B"],
    *,
    mask: int,
    vocab: int,
    special: Collection[int],
    rate: float | Array = 0.15,
    keep: float | Array = 0.1,
    random: float | Array = 0.1,
    word_starts: Bool[Array, "B T"] | None = None,
    span: float | Array | None = None,
) -> Masked:
    """Chooses tokens at a rate; of the chosen, most become `mask`, some a random id, some stay (Devlin et al. 2019).

    Each token, whole word or span is chosen independently (section 3.1 of the paper; whole words as in its later
    release). With `span`, a stretch of words of geometric length with that mean is chosen from a start on (Joshi et al.
    2020, section 3.1, without their bound of 10), starts being so rare that `rate` of the tokens are chosen on average.

    Args:
      tokens: ids.
      allowed: which of them may be chosen.
      keys: one random key per row, of this step.
      mask: the id that stands in the place of a chosen token.
      vocab: number of ids, V.
      special: ids that a random one is never.
      rate: probability of being chosen, in [0, 1].
      keep: share of the chosen that stay as they are.
      random: share of the chosen that become an id drawn at random.
      word_starts: choose whole words, which begin there; None chooses tokens.
      span: mean number of words in a span; None chooses single ones.

    Returns:
      The tokens to be read, and which of them were chosen.
    """
    length = tokens.shape[1]
    plain = jnp.asarray(np.setdiff1d(np.arange(vocab), list(special)))

    def row(key: Array, ids: Array, free: Array, starts: Array) -> tuple[Array, Array]:
        choosing, deciding, drawing = jax.random.split(key, 3)
        unit = jnp.cumsum(starts) * free  # the number of a token's word
        if span is None:
            chosen = (jax.random.uniform(choosing, (length + 1,)) < rate)[unit]
        else:
            chosen = _spans(choosing, length + 1, rate, span)[unit]
        chosen = chosen & free
        decision = jax.random.uniform(deciding, (length,))
        drawn = plain[jax.random.randint(drawing, (length,), 0, plain.shape[0])]
        changed = jnp.where(decision < keep, ids, jnp.where(decision < keep + random, drawn, mask))
        return jnp.where(chosen, changed, ids), chosen

    starts = allowed if word_starts is None else word_starts
    return Masked(*jax.vmap(row)(keys, tokens, allowed, starts))


def _spans(key: Array, units: int, rate: float | Array, span: float | Array) -> Bool[Array, " U"]:
    """Which of so many units in a row are chosen: a two-state Markov chain, stationary from the first one on.

    A chosen unit is followed by a chosen one with probability 1 - 1/span; the share of chosen units is `rate`.
    """
    go_on = 1 - 1 / jnp.asarray(span, jnp.float32)
    begin = jnp.minimum(rate * (1 - go_on) / jnp.maximum(1 - rate, 1e-6), 1)
    drawn = jax.random.uniform(key, (units,))

    def step(chosen: Array, u: Array) -> tuple[Array, Array]:
        chosen = u < jnp.where(chosen, go_on, begin)
        return chosen, chosen

    first = drawn[0] < rate
    return jnp.concatenate([first[None], jax.lax.scan(step, first, drawn[1:])[1]])
