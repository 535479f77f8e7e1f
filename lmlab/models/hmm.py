"""The hidden Markov language model (Rabiner 1989), by the exact forward algorithm."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.ranges import Count, NonNegative
from lmlab.registry import models

LEAST = 1e-30
"""Probabilities below this count as this: its reciprocal is still a float32, so that no gradient overflows."""


class Laws(NamedTuple):
    """The logarithms of the model's probabilities, float32."""

    start: Float[Array, " K"]
    transition: Float[Array, "K K"]
    emission: Float[Array, "K V"]


@models.register("hmm")
class HMM(nnx.Module):
    """A chain of hidden states, each of which emits one token (Rabiner 1989, Proceedings of the IEEE 77:257).

    Its states, as other models' widths, are K: `hidden` is the filtered law of the state, p(z_t | w_1 … w_t), and
    `project` the exact logarithms of p(w_t+1 | w_1 … w_t). The parameters are log-probabilities up to a constant of
    each row. They are learned by gradient, as any model's, or by Baum-Welch: the loss `expected_counts` with the
    optimizer `expectation_maximization`.

    Capabilities: CausalLM, and MarkovLM of `expected_counts`.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: not used: probabilities are float32 whatever the compute dtype.
      rngs: where initial values come from.
      states: number of hidden states, K. A token that only opens rows takes one for itself.
      init_scale: standard deviation of the initial parameters; with 0 all states are alike for ever.
    """

    TINY: ClassVar[str] = "hmm.states = 5"

    def __init__(
        self, vocab: int, dtype: Any, rngs: nnx.Rngs, *, states: Count = 64, init_scale: NonNegative = 0.5
    ) -> None:
        del dtype
        self.states = states

        def param(shape: tuple[int, ...], role: str) -> nnx.Param[Array]:
            return nnx.Param(init_scale * jax.random.normal(rngs.params(), shape), role=role)

        self.start = param((states,), "bias")
        self.transition = param((states, states), "kernel")
        self.emission = param((states, vocab), "kernel")

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Float[Array, "B K"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T K"], Float[Array, "B K"] | None]:
        """The law of the state that emitted each token, given this token and those before it.

        Args:
          tokens: ids.
          positions: not used: the chain knows the order.
          segment_ids: the document of each token; the chain starts anew in each.
          cache: the law of the next state, as it is before the first token.
          keys: not used: there is no dropout.
        """
        del positions, keys
        filtered, _, ahead = _forward(self._laws(), tokens, segment_ids, cache)
        return filtered, ahead

    def project(self, hidden: Float[Array, "*N K"]) -> Float[Array, "*N V"]:
        """Logarithms of the next token's probabilities, float32."""
        laws = self._laws()
        return _log(_product(_product(hidden, jnp.exp(laws.transition)), jnp.exp(laws.emission)))

    def init_cache(self, batch: int, length: int) -> Float[Array, "B K"]:
        """The law of the first state, whatever `length` is."""
        return jnp.broadcast_to(jnp.exp(self._laws().start), (batch, self.states))

    def free_log_likelihood(
        self, tokens: Int[Array, "B T"], targets: Int[Array, "B T"], *, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """log p of the first token of each segment (0 at the others), and of each target after what was read.

        The values are those of normalised laws; gradients are those with respect to log-probabilities that are free to
        be any numbers. Summed over a text, this gradient is the expected number of times that the chain starts in a
        state, goes from one to another, and emits a token, given the text (Rabiner 1989, section III.C).
        """
        free = Laws(*(theta - jax.lax.stop_gradient(_normaliser(theta)) for theta in self._parameters()))
        filtered, first, _ = _forward(free, tokens, segment_ids, None)
        following = _product(filtered, jnp.exp(free.transition))
        return first, jax.nn.logsumexp(_log(following) + free.emission.T[targets], -1)

    def _parameters(self) -> Laws:
        return Laws(self.start[...], self.transition[...], self.emission[...])

    def _laws(self) -> Laws:
        return Laws(*(jax.nn.log_softmax(theta) for theta in self._parameters()))


def _forward(
    laws: Laws, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None, ahead: Float[Array, "B K"] | None
) -> tuple[Float[Array, "B T K"], Float[Array, "B T"], Float[Array, "B K"] | None]:
    """The forward algorithm, each step normalised: no product of many probabilities is ever formed.

    Args:
      laws: the model's.
      tokens: ids.
      segment_ids: as in `HMM.hidden`.
      ahead: the law of the first token's state; None is the start of a text.

    Returns:
      The filtered laws; log p of the first token of each segment, 0 elsewhere; the law of the state after the last
      token, None where `ahead` is.
    """
    start, transition = jnp.exp(laws.start), jnp.exp(laws.transition)
    starts, reads = _marks(tokens, segment_ids, continued=ahead is not None)

    def step(ahead: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        log_emission, starts, reads = xs
        law = jnp.where(starts[:, None], start, ahead)
        joint = _log(law) + log_emission
        filtered = jax.nn.softmax(joint)
        first = jnp.where(starts, jax.nn.logsumexp(joint, -1), 0.0)
        return jnp.where(reads[:, None], _product(filtered, transition), ahead), (filtered, first)

    given = jnp.broadcast_to(start, (len(tokens), len(start))) if ahead is None else ahead
    last, (filtered, first) = jax.lax.scan(step, given, (laws.emission.T[tokens.T], starts.T, reads.T))
    return filtered.swapaxes(0, 1), first.T, None if ahead is None else last


def _marks(
    tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None, *, continued: bool
) -> tuple[Bool[Array, "B T"], Bool[Array, "B T"]]:
    """Where the chain starts anew, and which tokens it reads."""
    nowhere, everywhere = jnp.zeros_like(tokens, bool), jnp.ones_like(tokens, bool)
    if continued:
        return nowhere, everywhere if segment_ids is None else segment_ids != 0
    if segment_ids is None:
        return nowhere.at[:, 0].set(True), everywhere
    return everywhere.at[:, 1:].set(segment_ids[:, 1:] != segment_ids[:, :-1]), everywhere


def _product(law: Float[Array, "*N K"], matrix: Float[Array, "K M"]) -> Float[Array, "*N M"]:
    return jnp.matmul(law, matrix, precision="highest")


def _log(probability: Float[Array, "*N"]) -> Float[Array, "*N"]:
    return jnp.log(jnp.maximum(probability, LEAST))


def _normaliser(theta: Float[Array, "*N M"]) -> Float[Array, "*N 1"]:
    return jax.nn.logsumexp(theta, -1, keepdims=True)
