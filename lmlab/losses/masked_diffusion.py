"""Masked diffusion: a bound on the likelihood from a model that fills in masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import BidirectionalLM, LossOutput, MaskableBatch
from lmlab.losses.masking import mask_id
from lmlab.nn.randomness import content_keys
from lmlab.ranges import Count, ProperFraction
from lmlab.registry import losses

NEVER = -1e30
"""The logit of what cannot be; finite, so that no gradient is a difference of infinities."""
_NOISE = 0x6D646C6D
"""Which of a row's keys draw noise; dropout's are small numbers."""


class Noised(NamedTuple):
    """A row with some of its tokens masked, and what the nats of these are multiplied by."""

    masked: Bool[Array, " T"]
    factor: Float[Array, ""]


@losses.register("masked_diffusion")
@dataclass(frozen=True)
class MaskedDiffusion:
    """The bound of absorbing diffusion, E_t[1/t · Σ over masked of -log p(w | the rest)] in nats (MDLM, Sahoo et al.
    2024, arXiv:2406.07524, equation 10, with alpha_t = 1 - t).

    At time t every token is masked with probability t; the mask itself has probability 0 (section 3.2.3), and a token
    that is not masked stays as it is. The expectation bounds -log p of the row, and is that of a model that writes the
    tokens one by one in any order (Ou et al. 2024, arXiv:2406.03736): a perfect denoiser reaches the optimum of a
    next-token loss. Tokens that may not be masked are given.

    The times of a row's draws are stratified, as MDLM's are over a batch: here a row's noise is a function of its own
    key alone, so that it does not depend on microbatches and devices. In an evaluation the key is the row's content.

    Needs: BidirectionalLM, and a batch of `tokens`, `segment_ids` and `weights` (1 where a token may be masked).
    Metrics: `nelbo` (the bound, nats per token that may be masked), `masked_nats` per masked token, and the share
    `masked`.

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data); `mask` is one.
      noise: `time` masks each token at a time in [least_time, 1]; `count` draws the number of masked tokens instead,
        from 1 to all n that may be, and multiplies by n / number: the same expectation with less variance.
      least_time: where the factor 1/t ends (1e-3 in the authors' code). The bound stays one where tokens are the harder
        to find the more are masked, and is too high by less than this share.
      draws: masked copies of each row in a training step.
      eval_draws: masked copies of each row in an evaluation, one after the other.

    Raises:
      ConfigError: there is no mask among the ids.
    """

    needs: ClassVar[type] = BidirectionalLM
    reads: ClassVar[type] = MaskableBatch
    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    experiment.tokenizer = @bytes
    bytes.specials = ['mask']
    masked_diffusion.draws = 2
    masked_diffusion.eval_draws = 3
    """

    vocab: int
    special_ids: Mapping[str, int]
    noise: Literal["time", "count"] = "time"
    least_time: ProperFraction = 1e-3
    draws: Count = 1
    eval_draws: Count = 8

    def __post_init__(self) -> None:
        mask_id(self.special_ids)

    def __call__(
        self, model: BidirectionalLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch, means over the draws; `keys` draw the noise, and switch the model's dropout on."""
        draws = self.eval_draws if keys is None else self.draws
        if draws == 1:
            return self._sums(model, batch, keys, 0, 1)

        def add(sums: LossOutput, draw: Array) -> tuple[LossOutput, None]:
            return jax.tree.map(jnp.add, sums, self._sums(model, batch, keys, draw, draws)), None

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: self._sums(model, batch, keys, 0, draws)))
        sums = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), zeros, jnp.arange(draws))[0]
        return jax.tree.map(lambda x: x / draws, sums)

    def noised(
        self, batch: Mapping[str, Array], keys: Key[Array, " B"], draw: int | Array = 0, draws: int = 1
    ) -> Noised:
        """Which tokens of each row are masked in one of several draws, (B, T), and the factors of the rows, (B,)."""

        def row(key: Array, free: Array) -> Noised:
            choosing, deciding = jax.random.split(jax.random.fold_in(key, _NOISE))
            place = (jax.random.uniform(choosing) + draw) / draws  # the same offset in each draw: stratified
            drawn = jax.random.uniform(jax.random.fold_in(deciding, draw), free.shape)
            if self.noise == "time":
                time = self.least_time + (1 - self.least_time) * place
                return Noised((drawn < time) & free, 1 / jnp.maximum(time, 1e-9))
            count = free.sum()
            number = jnp.minimum(1 + jnp.floor(place * count), count)
            ranks = jnp.argsort(jnp.argsort(jnp.where(free, drawn, 2.0)))
            return Noised((ranks < number) & free, count / jnp.maximum(number, 1))

        return jax.vmap(row)(keys, batch["weights"] > 0)

    def _sums(
        self,
        model: BidirectionalLM,
        batch: Mapping[str, Array],
        keys: Key[Array, " B"] | None,
        draw: int | Array,
        draws: int,
    ) -> LossOutput:
        tokens, mask = batch["tokens"], mask_id(self.special_ids)
        masked, factor = self.noised(batch, content_keys(tokens) if keys is None else keys, draw, draws)
        dropping = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
        states = model.encode(jnp.where(masked, mask, tokens), segment_ids=batch["segment_ids"], keys=dropping)
        found = log_probabilities(model.project(states), mask)
        nats = -jnp.take_along_axis(found, tokens[..., None], -1)[..., 0]
        per_row = jnp.where(masked, nats, 0).sum(-1)
        total, count = (factor * per_row).sum(), masked.sum(dtype=jnp.float32)
        weight = (batch["weights"] > 0).sum(dtype=jnp.float32)
        metrics = {"nelbo": (total, weight), "masked_nats": (per_row.sum(), count), "masked": (count, weight)}
        return LossOutput(total, weight, metrics)


def log_probabilities(logits: Float[Array, "*N V"], mask: int) -> Float[Array, "*N V"]:
    """Of the tokens that may stand in the place of a mask: all but the mask itself."""
    return jax.nn.log_softmax(jnp.where(jnp.arange(logits.shape[-1]) == mask, NEVER, logits))
