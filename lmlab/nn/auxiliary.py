"""Terms that a model adds to whatever loss it is trained with: a router's balance, a charge on recurrent states.

A model reports them while it is traced, and only a collector that is open around it hears them: the trainer opens one
around the loss, and nobody does in an evaluation or in generation, where a report is forgotten.

    with collecting() as terms:
        output = loss(model, batch, keys, step)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Float

from lmlab.errors import ConfigError


class Term(NamedTuple):
    """What a model adds to a loss: coefficient * total / weight, once both sums are those of the whole batch.

    Attributes:
      total: a sum over rows, float32.
      weight: what to divide it by, a sum over rows that depends on the batch only, not on parameters; float32.
      coefficient: what the quotient is multiplied by; may be a tracer.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]
    coefficient: float | Float[Array, ""]


class Collector(NamedTuple):
    """What was reported since it was opened, and where in the tracing that was."""

    terms: dict[str, Term]
    level: Any


# Programs are traced in several threads, each of which has its own.
_OPEN: ContextVar[Collector | None] = ContextVar("auxiliary_terms", default=None)


@contextmanager
def collecting() -> Iterator[dict[str, Term]]:
    """The terms, by name, that are reported inside; a collector that is open outside does not hear them."""
    collector = Collector({}, _level())
    token = _OPEN.set(collector)
    try:
        yield collector.terms
    finally:
        _OPEN.reset(token)


def report(name: str, total: Array, weight: Array | float, coefficient: float | Array) -> None:
    """Adds a term to the loss that is being computed, if a collector is open.

    Call it outside of loops and of rematerialised functions: blocks of a stack give their sums to the model as outputs,
    and the model reports these. Reports of one name, of two stacks or of a loss that reads twice, add up: sums and
    weights; the coefficient is that of the last. One that is known to be zero reports nothing.

    Args:
      name: of its metric, `auxiliary/NAME`.
      total, weight, coefficient: see `Term`.

    Raises:
      ConfigError: the loss calls the model inside a loop, out of which nothing can be reported.
    """
    collector = _OPEN.get()
    if collector is None or (isinstance(coefficient, int | float) and coefficient == 0):
        return
    if collector.level != _level():
        raise ConfigError(
            f"the model's term '{name}' cannot be added to a loss that calls the model inside a loop. "
            "Set the term's coefficient to 0, or make the loss call the model once (such as one draw)."
        )
    total, weight = jnp.asarray(total, jnp.float32), jnp.asarray(weight, jnp.float32)
    before = collector.terms.get(name)
    if before is not None:
        total, weight = before.total + total, before.weight + weight
    collector.terms[name] = Term(total, weight, coefficient)


def charge(terms: Mapping[str, Term], weights: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
    """coefficient * total / weight, summed over the terms; `weights` are those of the whole batch, by name."""
    parts = [term.coefficient * term.total / positive(weights[name]) for name, term in terms.items()]
    return sum(parts, jnp.zeros(()))


def positive(weight: Float[Array, ""]) -> Float[Array, ""]:
    """The weight, or one where it is zero: a sum over nothing is 0, and so is its mean, not 0/0."""
    return jnp.where(weight > 0, weight, 1.0)


def _level() -> Any:
    return get_opaque_trace_state(convention="nnx")
