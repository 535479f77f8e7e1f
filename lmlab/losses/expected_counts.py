"""The likelihood of whole texts under a Markov model, as expectation-maximization needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, LossOutput, TokenBatch
from lmlab.registry import losses


@runtime_checkable
class MarkovLM(CausalLM, Protocol):
    """A causal model that tells the likelihood of a text as a function of free log-probabilities."""

    def free_log_likelihood(
        self, tokens: Int[Array, "B T"], targets: Int[Array, "B T"], *, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """log p of the first token of each segment (0 at the others), and of each target after what was read.

        Their gradients are those of free parameters: expected counts.
        """
        ...


@losses.register("expected_counts")
@dataclass(frozen=True)
class ExpectedCounts:
    """-log p(w_1 … w_T), in nats, of which the gradient is minus the expected count of every parameter's use.

    The E-step of Baum-Welch (Baum et al. 1970; Dempster et al. 1977): the gradient of a log-likelihood with respect to
    log-probabilities that are free is the posterior expectation of how often each is used (Salakhutdinov et al. 2003;
    Eisner 2016). The optimizer `expectation_maximization` makes the M-step of it. The softmax of `autoregressive` would
    take each row's total away from the counts, which is why this loss is another one; and the first token of each
    segment, which nothing predicts, counts too.

    A row's weights are expected to be 1 up to some target and 0 from there on. Where they are 0 in the middle of a
    text, what is measured is a conditional likelihood, of which the gradient is a difference of counts.

    Needs: MarkovLM, and a batch of `tokens` with `targets` and `weights`.
    Metrics: `nats` (per target, what `autoregressive` measures) and `first_nats` (per first token).
    """

    needs: ClassVar[type] = MarkovLM
    reads: ClassVar[type] = TokenBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("perplexity",)
    HOOKS: ClassVar[tuple[str, ...]] = ("samples",)
    TINY: ClassVar[str] = """
    experiment.optimizer = @expectation_maximization
    experiment.clip_norm = None
    """

    def __call__(
        self, model: MarkovLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; nothing is drawn."""
        segments, weights = batch.get("segment_ids"), batch["weights"].astype(jnp.float32)
        first, following = model.free_log_likelihood(batch["tokens"], batch["targets"], segment_ids=segments)
        begins = jnp.zeros_like(weights).at[:, 0].set(1.0)
        if segments is not None:
            begins = begins.at[:, 1:].set(segments[:, 1:] != segments[:, :-1])
        nats, weight = -(following * weights).sum(), weights.sum()
        first_nats, firsts = -(first * weights).sum(), (begins * weights).sum()
        metrics = {"nats": (nats, weight), "first_nats": (first_nats, firsts)}
        return LossOutput(nats + first_nats, weight + firsts, metrics)
