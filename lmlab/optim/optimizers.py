"""Update rules by name, over optax; their numbers may be tracers.

Learning rates are functions of the trainer's step, which every `update` is given as the extra argument `step`; the
optimizers' own states hold no clock but the one of their bias corrections. The trainer clips the gradient first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import optax
import optax.contrib
from jax import Array
from jaxtyping import Int

from lmlab.contracts import Schedule
from lmlab.optim.roles import having_role
from lmlab.optim.schedules import value_at
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import optimizers

DECAYED = ("kernel", "embedding")
"""Roles that weight decay shrinks by default: matrices, not biases, scales and positions."""


def descend(learning_rate: NonNegative | Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the learning rate at the trainer's step."""

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, *, step: Int[Array, ""], **others: Any
    ) -> tuple[Any, optax.EmptyState]:
        rate = value_at(learning_rate, step)
        return jax.tree.map(lambda leaf: -rate * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def by_rate(rates: Mapping[str, float], updates: Mapping[str, Array]) -> dict[str, Array]:
    """Updates by path, each times its rate where it has one."""
    return {path: update * rates[path] if path in rates else update for path, update in updates.items()}


@optimizers.register("sgd")
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; with momentum as in Sutskever et al. 2013.

    Args:
      learning_rate: step size.
      momentum: decay of the sum of past gradients; None: no momentum, and no memory for it.
      nesterov: look ahead by one momentum step.
      weight_decay: L2: this times the parameter is added to its gradient, before the momentum.
      decay_roles: roles of the parameters that weight decay shrinks.
    """

    TINY: ClassVar[str] = "sgd.learning_rate = 0.1"

    learning_rate: NonNegative | Schedule
    momentum: ProperFraction | None = None
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    decay_roles: tuple[str, ...] = DECAYED

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        decayed = having_role(roles, self.decay_roles, "sgd.decay_roles")
        parts = [optax.add_decayed_weights(self.weight_decay, mask=decayed)]
        if self.momentum is not None:
            parts.append(optax.trace(self.momentum, nesterov=self.nesterov))
        return optax.chain(*parts, descend(self.learning_rate))


@optimizers.register("adamw")
@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), as in PyTorch.

    Args:
      learning_rate: step size.
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient (0.95 steadies language models, GPT-3, arXiv:2005.14165, appendix B).
      eps: added to the root of the mean square.
      weight_decay: each step subtracts learning_rate · this · parameter.
      decay_roles: roles of the parameters that weight decay shrinks.
      rates: by path, what multiple of the learning rate a parameter learns by (given by the program, see `nn.mup`);
        weight decay shrinks all by the same.
    """

    TINY: ClassVar[str] = "adamw.learning_rate = 0.01"

    learning_rate: NonNegative | Schedule
    b1: ProperFraction = 0.9
    b2: ProperFraction = 0.95
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.1
    decay_roles: tuple[str, ...] = DECAYED
    rates: Mapping[str, float] = field(default_factory=dict)

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        decayed = having_role(roles, self.decay_roles, "adamw.decay_roles")
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            *([optax.stateless(lambda updates, _: by_rate(self.rates, updates))] if self.rates else []),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            descend(self.learning_rate),
        )


@optimizers.register("lion")
@dataclass(frozen=True)
class Lion:
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675).

    Its learning rate is 3 to 10 times smaller than AdamW's, and its weight decay as much larger.

    Args:
      learning_rate: step size.
      b1: weight of the momentum against the gradient, inside the sign.
      b2: decay of the momentum.
      weight_decay: each step subtracts learning_rate · this · parameter.
      decay_roles: roles of the parameters that weight decay shrinks.
    """

    TINY: ClassVar[str] = "lion.learning_rate = 0.01"

    learning_rate: NonNegative | Schedule
    b1: ProperFraction = 0.9
    b2: ProperFraction = 0.99
    weight_decay: NonNegative = 1.0
    decay_roles: tuple[str, ...] = DECAYED

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        decayed = having_role(roles, self.decay_roles, "lion.decay_roles")
        return optax.chain(
            optax.scale_by_lion(self.b1, self.b2),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            descend(self.learning_rate),
        )


@optimizers.register("adafactor")
@dataclass(frozen=True)
class Adafactor:
    """Adam's second moment kept as a row and a column (Shazeer & Stern 2018, arXiv:1804.04235).

    The factors, the clipping and the parameter scale are taken over whole arrays: the layers of a stack, which lie in
    one array, share one clipping factor and one scale.

    Args:
      learning_rate: step size, relative to the parameter's root mean square where `relative` is set.
      decay: exponent c of the second moment's decay, 1 - step^-c.
      min_size_to_factor: arrays with two axes at least this long are factored, others keep all moments.
      clip_rms: each update is scaled down to this root mean square.
      relative: multiply by the parameter's root mean square (at least 1e-3).
      momentum: decay of the mean update; None: none, and no memory for it.
      weight_decay: each step subtracts learning_rate · this · parameter.
      decay_roles: roles of the parameters that weight decay shrinks.
    """

    TINY: ClassVar[str] = "adafactor.learning_rate = 0.01"

    learning_rate: NonNegative | Schedule
    decay: ProperFraction = 0.8
    min_size_to_factor: Count = 128
    clip_rms: Positive = 1.0
    relative: bool = True
    momentum: ProperFraction | None = None
    weight_decay: NonNegative = 0.0
    decay_roles: tuple[str, ...] = DECAYED

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        decayed = having_role(roles, self.decay_roles, "adafactor.decay_roles")
        parts = [
            optax.scale_by_factored_rms(decay_rate=self.decay, min_dim_size_to_factor=self.min_size_to_factor),
            optax.clip_by_block_rms(self.clip_rms),
        ]
        if self.relative:
            parts.append(optax.scale_by_param_block_rms())
        if self.momentum is not None:
            parts.append(optax.ema(self.momentum, debias=False))
        parts.append(optax.add_decayed_weights(self.weight_decay, mask=decayed))
        return optax.chain(*parts, descend(self.learning_rate))


@optimizers.register("muon")
@dataclass(frozen=True)
class Muon:
    """Orthogonalized momentum for kernels, AdamW for all else (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    A kernel's last two axes are its matrix (in, out); any axes before these are layers, each orthogonalized alone.
    An update has singular values near 1, times √max(1, out / in).

    Args:
      learning_rate: step size of the kernels.
      adam_learning_rate: step size of all other parameters.
      momentum: decay of the mean gradient (Nesterov's kind).
      iterations: Newton-Schulz iterations.
      adam_b1: AdamW's decay of the mean gradient.
      adam_b2: AdamW's decay of the mean squared gradient.
      adam_eps: AdamW's addition to the root of the mean square.
      weight_decay: each step subtracts learning rate · this · parameter.
      decay_roles: roles of the parameters that weight decay shrinks.
    """

    TINY: ClassVar[str] = "muon.learning_rate = 0.01\nmuon.adam_learning_rate = 0.01"

    learning_rate: NonNegative | Schedule
    adam_learning_rate: NonNegative | Schedule
    momentum: ProperFraction = 0.95
    iterations: Count = 5
    adam_b1: ProperFraction = 0.9
    adam_b2: ProperFraction = 0.95
    adam_eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.1
    decay_roles: tuple[str, ...] = DECAYED

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        decayed = having_role(roles, self.decay_roles, "muon.decay_roles")
        decay = optax.add_decayed_weights(self.weight_decay, mask=decayed)
        matrices = optax.chain(
            optax.contrib.scale_by_muon(
                beta=self.momentum, ns_steps=self.iterations, weight_dimension_numbers=_last_two_axes
            ),
            optax.stateless(lambda updates, _: jax.tree.map(_for_its_shape, updates)),
            decay,
            descend(self.learning_rate),
        )
        adam = optax.scale_by_adam(self.adam_b1, self.adam_b2, self.adam_eps)
        others = optax.chain(adam, decay, descend(self.adam_learning_rate))
        return optax.partition(
            {"kernels": matrices, "others": others},
            {path: "kernels" if role == "kernel" else "others" for path, role in roles.items()},
        )


def _last_two_axes(leaves: Any) -> Any:
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1), leaves)


def _for_its_shape(update: Array) -> Array:
    """The update times √max(1, out / in), so that wide outputs move as much per unit as narrow ones."""
    return update * max(1.0, update.shape[-1] / update.shape[-2]) ** 0.5
