"""Weights that rise in the course of a run, such as that of the KL term of a text VAE (see the loss `elbo`).

Functions of the step, as the learning rates in `schedules` are; every number may be a tracer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from lmlab.optim.schedules import progress
from lmlab.ranges import Count, Fraction, Natural, NonNegative, Positive
from lmlab.registry import schedules


@schedules.register("ramp")
@dataclass(frozen=True)
class Ramp:
    """A straight line from `start` at step `begin` to `peak` at step `begin + rise`, and `peak` from there on.

    Args:
      rise: steps from `start` to `peak`.
      start: the first value.
      peak: the last value.
      begin: steps before the rise.
    """

    TINY: ClassVar[str] = "ramp.rise = 5\nramp.start = 0.01\nramp.peak = 0.1"

    rise: Count
    start: NonNegative = 0.0
    peak: NonNegative = 1.0
    begin: Natural = 0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        done = progress(step, self.begin, self.begin + self.rise)
        return jnp.asarray(self.start + (self.peak - self.start) * done, jnp.float32)


@schedules.register("cyclical")
@dataclass(frozen=True)
class Cyclical:
    """Rises again and again: each cycle goes from 0 to `peak` in a straight line, and stays there for its remainder.

    (Fu et al. 2019, arXiv:1903.10145, equation 6, with their linear function; 4 cycles that rise for one half there.)

    Args:
      steps: length of the run (given by the program).
      peak: the value at the end of each rise.
      cycles: number of cycles M.
      rise: the part R of a cycle in which the value rises.
    """

    TINY: ClassVar[str] = "cyclical.peak = 0.1\ncyclical.cycles = 2"

    steps: int
    peak: NonNegative = 1.0
    cycles: Count = 4
    rise: Fraction = 0.5

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        length = jnp.ceil(jnp.asarray(self.steps) / self.cycles)
        done = jnp.mod(step, length) / length
        return jnp.asarray(self.peak * jnp.clip(done / jnp.maximum(self.rise, 1e-6), 0.0, 1.0), jnp.float32)


@schedules.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid:
    """`peak / (1 + exp(-steepness · (step - middle)))`: the form that Bowman et al. 2016 anneal by (figure 2).

    Args:
      middle: the step at which half of `peak` is reached.
      steepness: per step; 0.0025 rises from 0.12 to 0.88 of `peak` in 1,600 steps.
      peak: the value that is approached.
    """

    TINY: ClassVar[str] = "sigmoid.middle = 3\nsigmoid.steepness = 0.7\nsigmoid.peak = 0.1"

    middle: Natural
    steepness: Positive = 0.0025
    peak: NonNegative = 1.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        return jnp.asarray(self.peak * jax.nn.sigmoid(self.steepness * (step - self.middle)), jnp.float32)


@schedules.register("exponential")
@dataclass(frozen=True)
class Exponential:
    """`start · (peak / start)^(step / last step)`: from `start` to `peak` by the same factor at each step.

    RelGAN (Nie et al. 2019) has the temperature of its relaxed texts fall so, from 1 to 1/100 or 1/1000.

    Args:
      steps: length of the run (given by the program).
      peak: the value at the last step.
      start: the value at step 0.
    """

    TINY: ClassVar[str] = "exponential.peak = 0.01\nexponential.start = 0.1"

    steps: int
    peak: Positive
    start: Positive = 1.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        first, last = (jnp.log(jnp.asarray(number, jnp.float32)) for number in (self.start, self.peak))
        return jnp.exp(first + (last - first) * progress(step, 0, self.steps - 1))
