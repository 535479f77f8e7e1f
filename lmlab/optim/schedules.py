"""Learning rates as functions of the step.

Each rises linearly from `peak / warmup` at step 0 to `peak` at step `warmup - 1` (so the first step already learns),
and then goes its own way to the last step of the run, `steps - 1`. Every number may be a tracer, the number of steps
of the warm-up too; optax's own schedules raise on these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from lmlab.ranges import Fraction, Natural, NonNegative, Positive
from lmlab.registry import schedules

if TYPE_CHECKING:
    from lmlab.contracts import Schedule

Number = float | Float[Array, ""]


def value_at(number: float | Schedule | Array, step: Int[Array, ""]) -> Float[Array, ""]:
    """The value of a number or a schedule at a step, float32."""
    return jnp.asarray(number(step) if callable(number) else number, jnp.float32)


def warmed_up(peak: Number, step: Int[Array, ""], warmup: Number) -> Float[Array, ""]:
    """min(1, (step + 1) / warmup) · peak; `warmup` 0 is none."""
    return peak * jnp.minimum(1.0, (step + 1.0) / jnp.maximum(warmup, 1.0))


def progress(step: Int[Array, ""], start: Number, end: Number) -> Float[Array, ""]:
    """How far `step` is from `start` (0) to `end` (1), clipped to that."""
    return jnp.clip((step - start) / jnp.maximum(end - start, 1.0), 0.0, 1.0)


@schedules.register("constant")
@dataclass(frozen=True)
class Constant:
    """`peak` after the warm-up.

    Args:
      peak: the learning rate after the warm-up.
      warmup: steps of linear warm-up.
    """

    TINY: ClassVar[str] = "constant.peak = 0.01\nconstant.warmup = 2"

    peak: NonNegative
    warmup: Natural = 0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        return jnp.asarray(warmed_up(self.peak, step, self.warmup), jnp.float32)


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `peak` to `final · peak` at the last step (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Args:
      steps: length of the run (given by the program).
      peak: the learning rate after the warm-up.
      warmup: steps of linear warm-up.
      final: the last rate as a fraction of `peak`.
    """

    TINY: ClassVar[str] = "cosine.peak = 0.01\ncosine.warmup = 2"

    steps: int
    peak: NonNegative
    warmup: Natural = 0
    final: NonNegative = 0.1

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        done = progress(step, self.warmup, self.steps - 1)
        fraction = self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.asarray(warmed_up(self.peak, step, self.warmup) * fraction, jnp.float32)


@schedules.register("linear")
@dataclass(frozen=True)
class Linear:
    """A straight line from `peak` to `final · peak` at the last step.

    Args:
      steps: length of the run (given by the program).
      peak: the learning rate after the warm-up.
      warmup: steps of linear warm-up.
      final: the last rate as a fraction of `peak`.
    """

    TINY: ClassVar[str] = "linear.peak = 0.01\nlinear.warmup = 2"

    steps: int
    peak: NonNegative
    warmup: Natural = 0
    final: NonNegative = 0.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        fraction = 1 - (1 - self.final) * progress(step, self.warmup, self.steps - 1)
        return jnp.asarray(warmed_up(self.peak, step, self.warmup) * fraction, jnp.float32)


@schedules.register("rsqrt")
@dataclass(frozen=True)
class ReciprocalSquareRoot:
    """`peak · √(timescale / (timescale + step - warmup))` after the warm-up (Zhai et al. 2022, arXiv:2106.04560).

    With `timescale` equal to `warmup` it is the schedule of Vaswani et al. 2017 (arXiv:1706.03762), √(warmup / step).

    Args:
      steps: length of the run (given by the program).
      peak: the learning rate after the warm-up.
      warmup: steps of linear warm-up.
      timescale: steps after which the rate has fallen to `peak / √2`; None: `warmup`, at least 1.
      cooldown: steps at the end over which the rate falls linearly to 0.
    """

    TINY: ClassVar[str] = "rsqrt.peak = 0.01\nrsqrt.warmup = 2"

    steps: int
    peak: NonNegative
    warmup: Natural = 1000
    timescale: Positive | None = None
    cooldown: Natural = 0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        scale = jnp.maximum(self.warmup if self.timescale is None else self.timescale, 1.0)
        fraction = jnp.sqrt(scale / (scale + jnp.maximum(step - self.warmup, 0.0)))
        rate = warmed_up(self.peak, step, self.warmup) * fraction * cooled_down(step, self.steps, self.cooldown, 0.0)
        return jnp.asarray(rate, jnp.float32)


@schedules.register("power")
@dataclass(frozen=True)
class Power:
    """`peak · (step + 1)^-exponent`: of stochastic approximation (Robbins & Monro 1951; Cappé & Moulines 2009).

    Args:
      peak: the value at step 0.
      exponent: in (0.5, 1], what the steps' numbers must have for their sum to diverge and that of squares not to.
    """

    TINY: ClassVar[str] = "power.peak = 0.01"

    peak: NonNegative = 1.0
    exponent: NonNegative = 0.6

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        return jnp.asarray(self.peak * (step + 1.0) ** -self.exponent, jnp.float32)


@schedules.register("warmup_stable_decay")
@dataclass(frozen=True)
class WarmupStableDecay:
    """Constant at `peak`, then a straight line down at the end (Hu et al. 2024, MiniCPM, arXiv:2404.06395).

    Args:
      steps: length of the run (given by the program).
      peak: the learning rate after the warm-up.
      warmup: steps of linear warm-up.
      decay: the last part of the run, as a fraction of `steps`, over which the rate falls.
      final: the last rate as a fraction of `peak`.
    """

    TINY: ClassVar[str] = "warmup_stable_decay.peak = 0.01\nwarmup_stable_decay.warmup = 2"

    steps: int
    peak: NonNegative
    warmup: Natural = 0
    decay: Fraction = 0.2
    final: NonNegative = 0.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at `step`, float32."""
        fraction = cooled_down(step, self.steps, self.decay * self.steps, self.final)
        return jnp.asarray(warmed_up(self.peak, step, self.warmup) * fraction, jnp.float32)


def cooled_down(step: Int[Array, ""], steps: Number, length: Number, final: Number) -> Float[Array, ""]:
    """1, falling linearly over the last `length` steps to `final` at the last step (`length` 0: never)."""
    # The step before the fall begins is the last at 1: `length` steps lie below it, the last of them at `final`.
    done = jnp.clip((step - (steps - 1 - length)) / jnp.maximum(length, 1.0), 0.0, 1.0)
    return 1 - (1 - final) * jnp.where(length > 0, done, 0.0)
