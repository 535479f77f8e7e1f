"""Masked language modelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import BidirectionalLM, LossOutput, MaskableBatch
from lmlab.errors import ConfigError
from lmlab.losses.cross_entropy import at_ids, is_argmax, sums_over_chosen
from lmlab.losses.masking import mask_id, mask_tokens
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.ranges import Count, Fraction, Within
from lmlab.registry import losses

Pair = tuple[Float[Array, ""], Float[Array, ""]]


@losses.register("mlm")
@dataclass(frozen=True)
class MaskedLM:
    """Cross-entropy of tokens that were masked, in nats summed over them (Devlin et al. 2019, section 3.1).

    Each token is chosen at a rate, anew at each step; of the chosen most become the mask, some another token, some
    stay as they are. Whole words and spans: see `masking.mask_tokens`. In an evaluation, what is chosen is a function
    of each row's content. Only chosen positions are projected to the vocabulary, and every one of them.

    Needs: BidirectionalLM, and a batch of `tokens`, `segment_ids`, `weights` (1 where a token may be chosen) and
    `word_starts`.
    Metrics: `nats` per chosen token, `accuracy` at them, and the share `chosen` of the tokens that may be.

    Example (one row, 4 masks):
      tokens  = [5, 7, 9, 6]
      weights = [1, 1, 1, 0]
      read    = [5, 4, 9, 6]      # the second was chosen
      loss    = -log p(7 | read) at the second position

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data); `mask` is one, and no other token becomes one.
      rate: probability of being chosen.
      keep: share of the chosen that stay as they are.
      random: share of the chosen that become a token drawn at random.
      whole_words: choose words, not tokens.
      span: choose spans of so many words on average (SpanBERT: 3.8, whose spans end at 10); None: single ones.
      chunk: project so many chosen positions of each row at a time; None: a fifth of the row.

    Raises:
      ConfigError: there is no mask among the ids, or `keep` and `random` are more than all.
    """

    needs: ClassVar[type | tuple[type, ...]] = BidirectionalLM
    reads: ClassVar[type] = MaskableBatch
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"chunk"})
    TINY: ClassVar[str] = "experiment.dataset = @hmm_source"

    vocab: int
    special_ids: Mapping[str, int]
    rate: Fraction = 0.15
    keep: Fraction = 0.1
    random: Fraction = 0.1
    whole_words: bool = False
    span: Annotated[float, Within(at_least=1)] | None = None
    chunk: Count | None = None

    def __post_init__(self) -> None:
        mask_id(self.special_ids)
        shares = (self.keep, self.random)
        if all(isinstance(share, int | float) for share in shares) and sum(shares) > 1:
            raise ConfigError(f"keep = {self.keep} and random = {self.random} are shares: together at most 1.")

    def __call__(
        self, model: BidirectionalLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the chosen tokens; `keys` choose them, and switch the model's dropout on."""
        tokens, chosen = self.masked(batch, keys)
        states = model.encode(tokens, segment_ids=batch["segment_ids"], keys=keys)
        return self.sums(model, states, batch, chosen)

    def masked(
        self, batch: Mapping[str, Array], keys: Key[Array, " B"] | None
    ) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
        """What the model reads, and which tokens were chosen."""
        return mask_tokens(
            batch["tokens"],
            batch["weights"] > 0,
            content_keys(batch["tokens"]) if keys is None else keys_for(keys, "masking"),
            mask=mask_id(self.special_ids),
            vocab=self.vocab,
            special=self.special_ids.values(),
            rate=self.rate,
            keep=self.keep,
            random=self.random,
            word_starts=batch["word_starts"] if self.whole_words else None,
            span=self.span,
        )

    def sums(
        self,
        model: BidirectionalLM,
        states: Float[Array, "B T D"],
        batch: Mapping[str, Array],
        chosen: Bool[Array, "B T"],
    ) -> LossOutput:
        """The loss of the chosen tokens, from the states of what the model read."""

        def part(there: Array, states: Array, ids: Array) -> tuple[Array, Array]:
            logits = model.project(states.reshape(-1, states.shape[-1]))
            return self.terms(logits, ids.reshape(-1), there.reshape(-1))

        sums = sums_over_chosen(part, chosen, states, batch["tokens"], size=self.chunk)
        return self.output(sums, batch, chosen)

    def terms(
        self, logits: Float[Array, "N V"], ids: Int[Array, " N"], there: Bool[Array, " N"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Nats and hits, summed over the positions that are there."""
        at_token = at_ids(logits, ids)
        nats = jax.nn.logsumexp(logits, -1) - at_token
        right = is_argmax(logits, at_token, ids)
        return jnp.where(there, nats, 0).sum(), (right & there).sum(dtype=jnp.float32)

    def output(self, sums: tuple[Array, Array], batch: Mapping[str, Array], chosen: Bool[Array, "B T"]) -> LossOutput:
        """The sums over the chosen tokens with what to divide them by."""
        (nats, right), count = sums, chosen.sum(dtype=jnp.float32)
        share = (count, (batch["weights"] > 0).sum(dtype=jnp.float32))
        return LossOutput(nats, count, {"nats": (nats, count), "accuracy": (right, count), "chosen": share})
