"""How the next token is chosen from its logits: greedily, or at random from a tempered and truncated distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import jax
import jax.numpy as jnp

from lmlab.errors import ConfigError
from lmlab.ranges import Count, NonNegative, Positive, Within
from lmlab.registry import samplers

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

EXCLUDED = float("-inf")
"""The logit of a token that cannot be drawn."""


@samplers.register("greedy")
@dataclass(frozen=True)
class Greedy:
    """The most probable token of every row; of equals the one with the lowest id."""

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
        """The argmax of each row, int32; `keys` are not used."""
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@samplers.register("sample")
@dataclass(frozen=True)
class Sample:
    """A random token: temperature, then the `top_k` best, the nucleus of mass `top_p` among them, and `min_p` of those.

    Before all that, tokens that stand in the text already are made less probable by `repetition_penalty`. All numbers
    but `top_k`, which decides shapes, may be tracers.

    Args:
      temperature: divides the logits; 0 is greedy, 1 the model's own distribution.
      top_k: keep only so many tokens (those that equal the last of them stay too); None keeps all.
      top_p: keep the fewest tokens whose probabilities reach this (nucleus sampling, Holtzman et al. 2020,
        arXiv:1904.09751), always at least one; None keeps all.
      min_p: keep the tokens that are at least so many times as probable as the most probable one (Nguyen et al. 2024,
        arXiv:2407.01082); None keeps all.
      repetition_penalty: the logit of a token that stands in the text (prompt included) is divided by it where it is
        positive and multiplied where it is negative (Keskar et al. 2019, arXiv:1909.05858, section 4.1, as
        Transformers does it for negative logits); None and 1 change nothing, below 1 favours repetition.
    """

    temperature: NonNegative = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Within(above=0, at_most=1)] | None = None
    min_p: Annotated[float, Within(at_least=0, at_most=1)] | None = None
    repetition_penalty: Positive | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"sample.top_k is {self.top_k}: it must be at least 1, or None to keep every token.")
        if isinstance(self.temperature, int | float) and not self.temperature >= 0:
            raise ConfigError(f"sample.temperature is {self.temperature}: it must be at least 0 (0 is greedy).")
        if isinstance(self.top_p, int | float) and not 0 < self.top_p <= 1:
            raise ConfigError(f"sample.top_p is {self.top_p}: it must be in (0, 1], or None to keep every token.")
        if isinstance(self.min_p, int | float) and not 0 <= self.min_p <= 1:
            raise ConfigError(f"sample.min_p is {self.min_p}: it must be in [0, 1], or None to keep every token.")
        if isinstance(self.repetition_penalty, int | float) and not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"sample.repetition_penalty is {self.repetition_penalty}: it must be above 0, or None for no penalty."
            )

    def weighed(
        self, logits: Float[Array, "B V"], tokens: Int[Array, "B N"], known: Bool[Array, "B N"]
    ) -> Float[Array, "B V"]:
        """The logits with those of tokens that are `known` penalised."""
        if self.repetition_penalty is None:
            return logits
        rows = jnp.arange(len(tokens))[:, None]
        written = jnp.zeros(logits.shape, bool).at[rows, tokens].max(known)
        penalised = jnp.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
        return jnp.where(written, penalised, logits)

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
        """One drawn id per row, int32; row b depends on `logits[b]` and `keys[b]` only."""
        best = jnp.max(logits, axis=-1, keepdims=True)
        # Measured from the best one, so that a small temperature gives 0 and -inf, never inf or nan.
        tempered = (logits - best) / jnp.maximum(self.temperature, jnp.finfo(jnp.float32).tiny)
        if self.top_k is not None:
            tempered = keep_top_k(tempered, self.top_k)
        if self.top_p is not None:
            tempered = keep_top_p(tempered, self.top_p)
        if self.min_p is not None:  # the best one's logit is 0
            tempered = jnp.where(tempered >= jnp.log(self.min_p), tempered, EXCLUDED)
        drawn = jax.vmap(jax.random.categorical)(keys, tempered)
        return jnp.where(self.temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """The logits with all but the `k` greatest of each row excluded."""
    least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= least, logits, EXCLUDED)


def keep_top_p(logits: Float[Array, "B V"], p: float | Float[Array, ""]) -> Float[Array, "B V"]:
    """The logits with all but the most probable tokens excluded, of each row as many as it takes to reach mass `p`."""
    descending = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # the mass of the more probable tokens
    kept = jnp.where(before < p, descending, jnp.inf)
    return jnp.where(logits >= jnp.min(kept, axis=-1, keepdims=True), logits, EXCLUDED)
