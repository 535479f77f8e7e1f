"""Next-token prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, LossOutput, TokenBatch
from lmlab.errors import ConfigError
from lmlab.losses.cross_entropy import at_ids, is_argmax, is_zero, sums_in_pieces
from lmlab.nn.carrying import begun_anew, empty_carry, rows_back, rows_first
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import losses


@dataclass(frozen=True)
class NextTokenSums:
    """What losses of next tokens have in common: the sums over what is predicted from states.

    Args:
      label_smoothing, z_loss, chunk: see `Autoregressive`.
    """

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"chunk"})

    label_smoothing: ProperFraction = 0.0
    z_loss: NonNegative = 0.0
    chunk: Count | None = None

    def sums(
        self, model: Any, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]
    ) -> LossOutput:
        """The loss of what is predicted from states, all at once or a chunk after the other."""

        def part(hidden: Array, targets: Array, weights: Array) -> LossOutput:
            logits = model.project(hidden.reshape(-1, hidden.shape[-1]))
            return self.terms(logits, targets.reshape(-1), weights.reshape(-1))

        return sums_in_pieces(part, self.chunk, hidden, targets, weights.astype(jnp.float32))

    def terms(self, logits: Float[Array, "N V"], targets: Int[Array, " N"], weights: Float[Array, " N"]) -> LossOutput:
        """The sums over positions of which the logits are given."""
        log_z = jax.nn.logsumexp(logits, -1)
        at_target = at_ids(logits, targets)
        nats = log_z - at_target
        total = nats
        if not is_zero(self.label_smoothing):
            total = total + self.label_smoothing * (log_z - logits.mean(-1) - nats)
        if not is_zero(self.z_loss):
            total = total + self.z_loss * log_z**2
        weight = weights.sum()
        correct = is_argmax(logits, at_target, targets).astype(jnp.float32)
        metrics = {"nats": ((nats * weights).sum(), weight), "accuracy": ((correct * weights).sum(), weight)}
        return LossOutput((total * weights).sum(), weight, metrics)


@losses.register("autoregressive")
@dataclass(frozen=True)
class Autoregressive(NextTokenSums):
    """Next-token cross-entropy, -log p(w_t | w_<t), in nats summed over the batch.

    Needs: CausalLM, and a batch of `tokens` with `targets` and `weights` (0 where nothing is to be predicted).
    Metrics: `nats` (cross-entropy without smoothing or z-loss) and `accuracy`, each with the sum of the weights.

    Example (one row, `<pad>` = 0):
      tokens  = [5, 7, 9, 0]
      targets = [7, 9, 0, 0]
      weights = [1, 1, 0, 0]      # 7 after 5, 9 after 7

    Args:
      label_smoothing: share of each target given to all ids alike, in [0, 1) (arXiv:1512.00567, section 7).
      z_loss: weight of (log Z)², which keeps log Z near 0; 1e-4 in PaLM (arXiv:2204.02311, section 5).
      chunk: project so many positions of each row at a time, and again in the backward pass, so that logits of
        shape (B, chunk, V) are all that is ever held; None projects all at once.
      carry: each row goes on from the state that the same row of the batch before has left, through which no gradient
        goes back: truncated back-propagation through time (Williams & Peng 1990). Needs
        `experiment.packing = 'contiguous'`, and a model whose cache does not grow with what it has read.
    """

    EVALUATORS: ClassVar[tuple[str, ...]] = ("perplexity",)
    HOOKS: ClassVar[tuple[str, ...]] = ("samples",)

    carry: bool = False

    def __call__(
        self, model: CausalLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch, whose rows go on from nothing; `keys` switches the model's dropout on."""
        hidden, _ = model.hidden(
            batch["tokens"], positions=batch.get("positions"), segment_ids=batch.get("segment_ids"), keys=keys
        )
        return self.sums(model, hidden, batch["targets"], batch["weights"])

    def start(self, model: CausalLM, rows: int) -> Any:
        """What `rows` rows carry that have read nothing; None where nothing is carried.

        Raises:
          ConfigError: the model's cache grows with what it has read.
        """
        return empty_carry(model, rows) if self.carry else None

    def carried(
        self,
        model: CausalLM,
        batch: Mapping[str, Array],
        carry: Any,
        keys: Key[Array, " B"] | None,
        step: Int[Array, ""],
    ) -> tuple[LossOutput, Any]:
        """Sums over the batch, whose rows go on from what is carried but for the `fresh` ones; and what they carry on.

        Raises:
          ConfigError: the batch does not say which rows are fresh.
        """
        if "fresh" not in batch:
            raise ConfigError(
                "autoregressive.carry: rows must go on from the batch before. Set experiment.packing = 'contiguous'."
            )
        cache = rows_back(model, begun_anew(carry, empty_carry(model, len(batch["tokens"])), batch["fresh"]))
        hidden, cache = model.hidden(batch["tokens"], cache=cache, keys=keys)
        return self.sums(model, hidden, batch["targets"], batch["weights"]), rows_first(model, cache)
