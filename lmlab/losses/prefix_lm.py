"""Going on with a text whose beginning is read at once, both sides of every token of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import LossOutput, PrefixLM
from lmlab.losses.autoregressive import NextTokenSums
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.registry import losses


@losses.register("prefix_lm")
@dataclass(frozen=True)
class PrefixLanguageModelling(NextTokenSums):
    """Next-token cross-entropy behind a prefix whose tokens see each other, in nats summed over the batch.

    Liu et al. 2018 (arXiv:1801.10198, section 4.2); Raffel et al. 2020 (arXiv:1910.10683, section 3.2.3). Of pairs, the
    text is the prefix of its target: a document's tokens before its first weight, and that which this one is predicted
    from. A document that is predicted from its first token on is divided at a place that is drawn, anew at each step,
    from all that leave something to predict; in an evaluation, by the row's content. Nothing of a prefix is predicted.

    Needs: PrefixLM, and a batch of `tokens` with `targets` and `weights`.
    Metrics: `nats` and `accuracy`, as in `autoregressive`.

    Example (a row of two documents; that of the second begins where its first weight says):
      tokens      = [5 7 9 4 | 8 6 3 2]
      weights     = [1 1 1 1 | 0 0 1 1]
      prefix      = [1 1 0 0 | 1 1 1 0]      # 2 of 4 was drawn
      counted     = [0 1 1 1 | 0 0 1 1]

    Args:
      label_smoothing, z_loss, chunk: see `autoregressive`.
    """

    needs: ClassVar[type] = PrefixLM
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out",)
    HOOKS: ClassVar[tuple[str, ...]] = ()

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; `keys` divide the documents, and switch the model's dropout on."""
        tokens, segments = batch["tokens"], batch.get("segment_ids")
        drawing = content_keys(tokens) if keys is None else keys_for(keys, "prefix")
        prefix, counted = divided(batch["weights"], segments, drawing)
        hidden, _ = model.hidden_with_prefix(
            tokens, prefix, positions=batch.get("positions"), segment_ids=segments, keys=keys
        )
        return self.sums(model, hidden, batch["targets"], jnp.where(counted, batch["weights"], 0))


def divided(
    weights: Float[Array, "B T"], segment_ids: Int[Array, "B T"] | None, keys: Key[Array, " B"]
) -> tuple[Bool[Array, "B T"], Bool[Array, "B T"]]:
    """Which tokens are of their document's prefix, and where what is predicted counts.

    The n-th place of a document that has a weight is the last of its prefix. n is 1 where the document's first place
    has none, else drawn from 1 to the number of such places.

    Args:
      weights: of the predictions.
      segment_ids: documents, each in one piece; None: each row is one.
      keys: one for each row.
    """
    asked = (weights > 0).astype(jnp.int32)
    segments = jnp.ones_like(asked) if segment_ids is None else segment_ids
    places = jnp.broadcast_to(jnp.arange(asked.shape[1]), asked.shape)
    edge = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 1)), constant_values=True)
    first = jax.lax.cummax(jnp.where(edge[:, :-1], places, 0), axis=1)
    last = jax.lax.cummin(jnp.where(edge[:, 1:], places, asked.shape[1]), axis=1, reverse=True)
    total = jnp.cumsum(asked, axis=1)
    before = jnp.take_along_axis(total - asked, first, axis=1)
    number, count = total - before, jnp.take_along_axis(total, last, axis=1) - before
    shares = jax.vmap(lambda key, segments: jax.random.uniform(key, (segments.shape[0] + 1,))[segments])(keys, segments)
    drawn = 1 + jnp.minimum(jnp.floor(shares * count).astype(jnp.int32), count - 1)
    chosen = jnp.where(jnp.take_along_axis(asked, first, axis=1) > 0, drawn, 1)
    return number - asked < chosen, number >= chosen
