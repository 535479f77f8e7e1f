"""Linear-chain conditional random fields (Lafferty et al. 2001): scores of whole sequences of tags."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int


class LinearChainCRF(nnx.Module):
    """p(y | x) ∝ exp(first[y_1] + Σ_t emission[t, y_t] + Σ_t transitions[y_t, y_t+1] + last[y_n]).

    As over a BiLSTM in Lample et al. 2016 (arXiv:1603.01360, section 2.2), whose tags for the beginning and the end
    are `first` and `last` here. Everything is zero at first. Sequences stand at the front of their rows: `there` is
    true for their n places, then false.

    Args:
      tags: number of tags, C.
    """

    def __init__(self, tags: int) -> None:
        # Biases in what matters to an optimizer: added to scores, and nothing is multiplied by them.
        self.transitions = nnx.Param(jnp.zeros((tags, tags)), role="bias")
        self.first = nnx.Param(jnp.zeros(tags), role="bias")
        self.last = nnx.Param(jnp.zeros(tags), role="bias")

    def log_probability(
        self, emissions: Float[Array, "B T C"], tags: Int[Array, "B T"], there: Bool[Array, "B T"]
    ) -> Float[Array, " B"]:
        """log p(tags | emissions), float32; 0 for an empty sequence. Tags behind the end do not matter."""
        gold = self._score(emissions, jnp.where(there, tags, 0), there)
        return jnp.where(there[:, 0], gold - self._log_partition(emissions, there), 0.0)

    def best(self, emissions: Float[Array, "B T C"], there: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """The most probable tags (Viterbi), int32; behind the end, the last one again."""
        transitions, numbers = self.transitions[...], jnp.arange(emissions.shape[-1])

        def forward(best: Array, place: tuple[Array, Array]) -> tuple[Array, Array]:
            emission, here = place
            through = best[:, :, None] + transitions
            pointer = jnp.where(here[:, None], through.argmax(1), numbers)
            return jnp.where(here[:, None], through.max(1) + emission, best), pointer

        best, pointers = jax.lax.scan(forward, self.first[...] + emissions[:, 0], _behind_first(emissions, there))
        last = (best + self.last[...]).argmax(-1)

        def backward(tag: Array, pointer: Array) -> tuple[Array, Array]:
            before = jnp.take_along_axis(pointer, tag[:, None], axis=1)[:, 0]
            return before, tag

        first, others = jax.lax.scan(backward, last, pointers, reverse=True)
        return jnp.concatenate([first[None], others]).T.astype(jnp.int32)

    def _score(
        self, emissions: Float[Array, "B T C"], tags: Int[Array, "B T"], there: Bool[Array, "B T"]
    ) -> Float[Array, " B"]:
        """What stands in the exponent."""
        emitted = jnp.take_along_axis(emissions, tags[..., None], axis=-1)[..., 0]
        passed = self.transitions[...][tags[:, :-1], tags[:, 1:]]
        final = jnp.take_along_axis(tags, jnp.maximum(there.sum(1) - 1, 0)[:, None], axis=1)[:, 0]
        inner = jnp.where(there, emitted, 0).sum(1) + jnp.where(there[:, 1:], passed, 0).sum(1)
        return self.first[...][tags[:, 0]] + inner + self.last[...][final]

    def _log_partition(self, emissions: Float[Array, "B T C"], there: Bool[Array, "B T"]) -> Float[Array, " B"]:
        """log Σ over all sequences of tags (forward algorithm)."""
        transitions = self.transitions[...]

        def forward(total: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
            emission, here = place
            through = jax.nn.logsumexp(total[:, :, None] + transitions, axis=1) + emission
            return jnp.where(here[:, None], through, total), None

        total, _ = jax.lax.scan(forward, self.first[...] + emissions[:, 0], _behind_first(emissions, there))
        return jax.nn.logsumexp(total + self.last[...], axis=-1)


def _behind_first(emissions: Float[Array, "B T C"], there: Bool[Array, "B T"]) -> tuple[Array, Array]:
    """Places from the second one on, the time first."""
    return emissions[:, 1:].swapaxes(0, 1), there[:, 1:].T
