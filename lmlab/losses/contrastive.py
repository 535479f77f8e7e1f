"""Vectors of texts, by telling each from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, LabelBatch, LossOutput, TokenEncoder
from lmlab.losses.cross_entropy import class_sums
from lmlab.nn.heads import pooled
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.nn.states import token_states
from lmlab.ranges import Count, Positive
from lmlab.registry import losses


@losses.register("contrastive")
@dataclass(frozen=True)
class Contrastive:
    """Finding a text again under other dropout, among other texts, in nats summed over texts (SimCSE).

    Gao et al. 2021 (arXiv:2104.08821), equation 4: every text is read twice, and -log softmax over the texts of its
    group of cos(vector, second vector) / temperature is taken at the text itself. The vector is the model's own (its
    pooler), else the mean of an encoder's states, else the last state of a causal model. The labels are not read.

    What a text is told from must not depend on how the batch is computed: it is the texts of its group, `group`
    consecutive rows of the global batch, which microbatches and devices do not split. One group as large as the batch
    is the paper's; it needs one device and one microbatch. An evaluation has dropout too, by each row's content.

    Needs: TokenEncoder or CausalLM, with dropout, and a batch of `tokens`, `segment_ids`, `type_ids`, `weights` (B,).
    Metrics, per text: `nats`, `accuracy` (the nearest is the text itself), and `alignment`, the squared distance of the
    two vectors, of length 1 (Wang & Isola 2020, arXiv:2005.10242, section 4.1).

    Args:
      group: rows that are told from each other; it divides the rows of a device's microbatch.
      temperature: of the softmax.
    """

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = LabelBatch
    TINY: ClassVar[str] = """
    experiment.dataset = @table_labelled
    contrastive.group = 2
    """

    group: Count = 64
    temperature: Positive = 0.05

    @property
    def together(self) -> int:
        """Rows that are compared with each other."""
        return self.group

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the texts; `keys` (in an evaluation, the rows' content) draw the dropout of both readings."""
        first, second = self.vectors(model, batch, content_keys(batch["tokens"]) if keys is None else keys)
        grouped = (x.reshape(-1, self.group, x.shape[-1]) for x in (first, second))
        scores = jnp.einsum("gid,gjd->gij", *grouped).reshape(-1, self.group) / self.temperature
        weights = batch["weights"].astype(jnp.float32)
        there = jnp.repeat(weights.reshape(-1, self.group) > 0, self.group, axis=0)
        itself = jnp.arange(len(weights)) % self.group
        output = class_sums(scores, itself, weights, there=there)
        distance = (jnp.square(first - second).sum(-1) * weights).sum()
        return output._replace(metrics={**output.metrics, "alignment": (distance, output.weight)})

    def vectors(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
        """Two vectors of length 1 for each row, under different dropout, float32."""
        twice = {name: jnp.repeat(batch[name], 2, axis=0) for name in ("tokens", "segment_ids", "type_ids")}
        both = jnp.stack([keys_for(keys, "first"), keys_for(keys, "second")], axis=1).reshape(-1)
        states = token_states(
            model, twice["tokens"], segment_ids=twice["segment_ids"], type_ids=twice["type_ids"], keys=both
        )
        vectors = pooled(model, states, twice["segment_ids"]).astype(jnp.float32)
        # The square root has no gradient at 0, where rows without a token may be.
        vectors *= jax.lax.rsqrt(jnp.square(vectors).sum(-1, keepdims=True) + 1e-12)
        return vectors[0::2], vectors[1::2]
