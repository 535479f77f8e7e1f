"""What a step minimises: the loss's mean, and the terms that the model itself adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Float, Int, Key

from lmlab.contracts import Loss, LossOutput, NoisyParameters
from lmlab.nn.auxiliary import Term, charge, collecting, positive
from lmlab.training.carrying import sums_of
from lmlab.training.randomness import noise_key

LOSS = "loss"
AUXILIARY = "auxiliary/"
"""What the metrics of a model's terms begin with."""


class WeightsNeeded(Exception):
    """What a model adds to its loss can be differentiated only where the weights of the whole batch are known."""


class Measured(NamedTuple):
    """What a loss says of a batch in training.

    Attributes:
      output: its sums, float32.
      terms: what the model adds, by name.
      carry: what the rows carry on; None where nothing.
    """

    output: LossOutput
    terms: dict[str, Term]
    carry: Any


Weights = dict[str, Float[Array, ""]]
"""What the sums of the whole batch are divided by: the loss's, as `LOSS`, and each term's, by name."""


def measured(
    model: Any,
    loss: Loss,
    batch: Mapping[str, Array],
    carry: Any,
    keys: Key[Array, " B"],
    step: Int[Array, ""],
    key: Array,
) -> Measured:
    """What a loss returns in training, and the terms that the model reported.

    Args:
      model: with its parameters, which are made noisy first, if it has such.
      loss: to be computed.
      batch: what it reads.
      carry: what the rows go on from; None where nothing.
      keys: one for each row.
      step: the number of the step.
      key: of the step, the same for all of its microbatches and devices.
    """
    if isinstance(model, NoisyParameters):
        model = model.with_noise(noise_key(key))
    with collecting() as terms:
        output, carry = sums_of(loss, model, batch, carry, keys, step)
    return Measured(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), output), dict(terms), carry)


def weights_of(found: Measured) -> Weights:
    """The weights of what was measured; none where the model reported no term."""
    if not found.terms:
        return {}
    return {LOSS: found.output.weight, **{name: term.weight for name, term in found.terms.items()}}


def minimised(found: Measured, weights: Weights) -> tuple[Float[Array, ""], LossOutput]:
    """What to differentiate, and what to report, with a metric of each term.

    With weights (the whole batch's), that is this part's share of the mean of the loss plus the terms' own means, so
    that shares and their gradients add up; without any, the loss's sum, which is still to be divided.

    Raises:
      WeightsNeeded: the model reported terms, and there are no weights.
    """
    output, terms = found.output, found.terms
    if not weights:
        if terms:
            raise WeightsNeeded
        return output.total, output
    total = output.total / positive(weights[LOSS]) + charge(terms, weights)
    own = {f"{AUXILIARY}{name}": (term.total, term.weight) for name, term in terms.items()}
    return total, output._replace(metrics={**output.metrics, **own})


def only_what_is_needed(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), without the operations that its results do not depend on.

    A compiler would leave them out, too, but only after it has read them; and they are not the program's cost.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    results = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shapes), results)
