"""Answers that are one of several choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, ChoiceBatch, LossOutput, TokenEncoder
from lmlab.losses.cross_entropy import NEVER, class_sums
from lmlab.nn.heads import Classifier, pooled
from lmlab.nn.states import token_states
from lmlab.ranges import ProperFraction
from lmlab.registry import losses


@losses.register("choice")
@dataclass(frozen=True)
class Choice:
    """Cross-entropy of the right one of several choices, in nats summed over questions.

    The text is read once with each choice, and one number is given to each reading, from its one vector (see
    `classification`); a softmax over the readings chooses (Radford et al. 2018, section 3.3; Devlin et al. 2019,
    section 4.4). Questions with fewer choices than others have none in the places that are left.

    Needs: TokenEncoder or CausalLM, and a batch of `tokens` and `segment_ids` (B, C, T), `labels` and `weights` (B,).
    Metrics, per question: `nats`, without smoothing, and `accuracy`.

    Args:
      label_smoothing: share of each target given to all choices alike.
      dropout: of the vector.
    """

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = ChoiceBatch
    TINY: ClassVar[str] = """
    experiment.dataset = @choices_jsonl
    experiment.seq_len = 31
    """

    label_smoothing: ProperFraction = 0.0
    dropout: ProperFraction = 0.1

    def make_head(self, width: int, rngs: nnx.Rngs) -> Classifier:
        """The layer over the vector."""
        return Classifier(width, 1, self.dropout, rngs=rngs)

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the questions; `keys` switches dropout on."""
        there = (batch["segment_ids"] > 0).any(-1)
        scores = self.scores(model, batch, keys)
        return class_sums(scores, batch["labels"], batch["weights"], there=there, label_smoothing=self.label_smoothing)

    def scores(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None = None
    ) -> Float[Array, "B C"]:
        """Logits of the choices, float32."""
        rows, choices, length = batch["tokens"].shape
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.split(key, choices))(keys).reshape(-1)
        tokens, segments = (batch[name].reshape(-1, length) for name in ("tokens", "segment_ids"))
        states = token_states(model, tokens, segment_ids=segments, keys=keys)
        scores = model.task_head(pooled(model, states, segments), keys).reshape(rows, choices)
        return jnp.where((batch["segment_ids"] > 0).any(-1), scores, NEVER)
