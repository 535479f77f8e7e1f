"""Pruning while training: kernels of which more and more entries are zero, and stay so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from lmlab.contracts import Optimizer
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Natural, ProperFraction
from lmlab.registry import optimizers


class PrunedState(NamedTuple):
    """What is kept beside the parameters, by the paths of the pruned ones.

    Attributes:
      inner: the state of the optimizer.
      dense: the parameters as if nothing had been pruned, of which zeros may come back.
      mask: False where the parameter is zero.
      score: minus the sum of gradient times weight over the steps; nothing unless the criterion is `movement`.
    """

    inner: Any
    dense: dict[str, Array]
    mask: dict[str, Array]
    score: dict[str, Array]


@optimizers.register("pruned")
@dataclass(frozen=True)
class Pruned:
    """Another optimizer's updates, of kernels of which a growing share is kept zero.

    The share rises from 0 at step `begin` to `sparsity` at step `end`, fast at first: s(t) = sparsity (1 - (1 - (t -
    begin) / (end - begin))³) (Zhu & Gupta 2017, arXiv:1710.01878, equation 1), and every `every` steps it is decided
    anew, in each matrix and each block by itself, what is zero: the entries that are smallest (`magnitude`), or those
    that moved towards zero, of the least -Σ gradient · weight (`movement`; Sanh et al. 2020, arXiv:2005.07683, section
    4.1, with a straight-through gradient and hard top-v). What is zero does not move, and may come back as it was; from
    `end` on everything stays as it is. Checkpoints hold the zeros, so that every command reads them.

    With `sparsity` None, what is zero at the first step stays zero: for going on from a pruned run by
    `experiment.init_from`. An average of the parameters (`experiment.ema`) remembers what was there before it was
    zero: use it with that only.

    Args:
      optimizer: makes the updates.
      stacked: paths of the parameters whose first axis is that of blocks (given by the program).
      sparsity: share of the entries that are zero in the end; None: of those that are at the first step.
      criterion: what is zero first.
      begin: the first step at which something is.
      end: the step from which the share is `sparsity`.
      every: steps from one decision to the next.
      kernels: regular expressions; the kernels whose path one of them is found in are pruned.
    """

    TINY: ClassVar[str] = "pruned.optimizer = @adamw\npruned.sparsity = 0.5\npruned.end = 3\nadamw.learning_rate = 0.01"

    optimizer: Optimizer
    stacked: frozenset[str] = frozenset()
    sparsity: ProperFraction | None = None
    criterion: Literal["magnitude", "movement"] = "magnitude"
    begin: Natural = 0
    end: Count = 1000
    every: Count = 1
    kernels: tuple[str, ...] = ("",)

    @property
    def learning_rate(self) -> Any:
        """The optimizer's, for the records."""
        return getattr(self.optimizer, "learning_rate", None)

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path.

        Raises:
          ConfigError: `end` is not behind `begin`, or a pattern finds no kernel.
        """
        if self.end <= self.begin:
            raise ConfigError(f"pruned.end = {self.end} must be behind pruned.begin = {self.begin}.")
        chosen = self._chosen(roles)
        rule = optax.with_extra_args_support(self.optimizer.transformation(roles))

        def init(params: Mapping[str, Array]) -> PrunedState:
            own = {path: params[path] for path in chosen if path in params}
            score = {path: jnp.zeros_like(value) for path, value in own.items()} if self._moves else {}
            mask = {path: jnp.ones(value.shape, bool) for path, value in own.items()}
            return PrunedState(rule.init(params), {path: jnp.copy(value) for path, value in own.items()}, mask, score)

        def update(
            gradients: Mapping[str, Array], state: PrunedState, params: Any = None, *, step: Int[Array, ""],
            **others: Any,
        ) -> tuple[dict[str, Array], PrunedState]:  # fmt: skip
            first = step == 0  # parameters may have been loaded since `init`
            dense = {path: jnp.where(first, params[path], value) for path, value in state.dense.items()}
            mask = dict(state.mask)
            if self.sparsity is None:
                mask = {path: jnp.where(first, params[path] != 0, value) for path, value in mask.items()}
            score = {path: state.score[path] - gradients[path] * dense[path] for path in state.score}
            kept = {path: g * mask[path] if path in mask else g for path, g in gradients.items()}
            moved, inner = rule.update(kept, state.inner, {**params, **dense}, step=step, **others)
            updates = dict(moved)
            for path, old in mask.items():
                free = dense[path] + moved[path] * old
                mask[path] = self._mask(path, score.get(path, jnp.abs(free)), old, step)
                updates[path] = jnp.where(mask[path], free, 0.0) - params[path]
                # What the parameter will be, to the bit, is what it is if it comes back.
                dense[path] = jnp.where(mask[path], params[path] + updates[path], free)
            return updates, PrunedState(inner, dense, mask, score)

        return optax.GradientTransformationExtraArgs(init, update)

    @property
    def _moves(self) -> bool:
        return self.criterion == "movement" and self.sparsity is not None

    def share(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The share of zeros at a step."""
        done = jnp.clip((step - self.begin) / (self.end - self.begin), 0.0, 1.0)
        return (0.0 if self.sparsity is None else self.sparsity) * (1 - (1 - done) ** 3)

    def _mask(
        self, path: str, rank_by: Float[Array, "..."], old: Bool[Array, "..."], step: Int[Array, ""]
    ) -> Bool[Array, "..."]:
        """Which entries are kept behind this step."""
        if self.sparsity is None:
            return old
        after = jnp.minimum(step + 1, self.end)
        turn = ((after - self.begin) % self.every == 0) | (after == self.end)
        due = (step + 1 >= self.begin) & (step < self.end) & turn

        def anew(values: Float[Array, "..."]) -> Bool[Array, "..."]:
            rows = values.reshape(values.shape[0] if path in self.stacked else 1, -1)
            zeros = jnp.round(self.share(after) * rows.shape[1]).astype(jnp.int32)
            order = jnp.argsort(jnp.argsort(rows, axis=1), axis=1)  # each entry's place among those of its matrix
            return (order >= zeros).reshape(values.shape)

        return jax.lax.cond(due, anew, lambda values: old, rank_by)

    def _chosen(self, roles: Mapping[str, str]) -> list[str]:
        there = [path for path, role in roles.items() if role == "kernel"]
        for pattern in self.kernels:
            try:
                found = any(re.search(pattern, path) for path in there)
            except re.error as error:
                raise ConfigError(f"pruned.kernels: '{pattern}' is no regular expression: {error}.") from None
            if not found:
                raise ConfigError(
                    f"pruned.kernels: no kernel's path has '{pattern}' in it. The model has:\n  " + "\n  ".join(there)
                )
        return [path for path in there if any(re.search(pattern, path) for pattern in self.kernels)]
