"""The M-step of Baum-Welch as an update rule: from expected counts to log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from lmlab.contracts import Schedule
from lmlab.optim.schedules import value_at
from lmlab.ranges import Fraction, NonNegative
from lmlab.registry import optimizers

LEAST = 1e-30
"""The share of its row that an entry without a count keeps, so that its logarithm is finite."""


class Statistics(NamedTuple):
    """The running mean of the expected counts, not yet divided by the weights that are in it.

    Attributes:
      counts: by path.
      weight: of all steps in it; 1 from the first step on with a learning rate of 1.
    """

    counts: dict[str, Array]
    weight: Float[Array, ""]


@optimizers.register("expectation_maximization")
@dataclass(frozen=True)
class ExpectationMaximization:
    """New log-probabilities from expected counts: log(counts + prior), each row (last axis) normalised.

    With a learning rate of 1 and a batch that is the whole corpus, a step is one of Baum-Welch, and never lowers the
    likelihood (Baum et al. 1970). With minibatches and a rate that falls, it is stepwise EM (Cappé & Moulines 2009,
    arXiv:0712.4273): counts ← (1 - rate) · counts + rate · counts of the batch; the schedule `power` makes
    it converge. The first steps count in full whatever the rate is, as in Adam's correction.

    Takes the gradient of the loss `expected_counts`, not clipped, and takes what is negative in the counts for 0.

    Args:
      learning_rate: weight of the batch's counts against those before.
      prior: added to every count, as a share of all scored tokens (the trainer divides the counts by their number).
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("expected_counts",)
    UNCLIPPED: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    expectation_maximization.learning_rate = 0.5
    experiment.loss = @expected_counts
    experiment.clip_norm = None
    """

    learning_rate: Fraction | Schedule = 1.0
    prior: NonNegative = 0.0

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule; all parameters are log-probabilities, whatever their roles."""

        def init(params: Any) -> Statistics:
            return Statistics(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))

        def update(
            gradients: Any, state: Statistics, params: Any = None, *, step: Int[Array, ""], **others: Any
        ) -> tuple[Any, Statistics]:
            rate = value_at(self.learning_rate, step)
            counts = jax.tree.map(lambda old, g: (1 - rate) * old - rate * g, state.counts, gradients)
            weight = (1 - rate) * state.weight + rate
            mean = jnp.maximum(weight, LEAST)
            updates = jax.tree.map(lambda c, p: _log_shares(c / mean + self.prior, p) - p, counts, params)
            return updates, Statistics(counts, weight)

        return optax.GradientTransformationExtraArgs(init, update)


def _log_shares(counts: Float[Array, "*N M"], before: Float[Array, "*N M"]) -> Float[Array, "*N M"]:
    """The logarithms of each row's shares; what they were before, in rows without a count."""
    counts = jnp.maximum(counts, 0)
    total = counts.sum(-1, keepdims=True)
    shares = counts / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, jnp.log(jnp.maximum(shares, LEAST)), before)
