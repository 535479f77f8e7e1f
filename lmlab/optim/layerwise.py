"""Fine-tuning layer by layer: lower layers learn more slowly, or later, than those above them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from lmlab.contracts import Optimizer
from lmlab.errors import ConfigError
from lmlab.ranges import Natural, Positive
from lmlab.registry import optimizers

FROM_THE_INPUT = (r"embedding|^positions|^input_norm", r"(^|/)encoder", r"(^|/)decoder|blocks", "")
"""Groups of parameters in the order in which a text passes them, for all of lmlab's models."""
NUMBERED = re.compile(r"/(\d+)(?=/)")
"""The number of a block in the path of a parameter, where blocks are not stacked."""


@optimizers.register("layerwise")
@dataclass(frozen=True)
class Layerwise:
    """Another optimizer's updates, smaller from layer to layer towards the input, or not before the layer's turn.

    The last layer (the head, the final norm) moves by the whole update, the one below it by `decay` times that, and so
    on: of L blocks, block l from 1 by decay^(L + 1 - l), the embeddings by decay^(L + 1). So have Howard & Ruder 2018
    (arXiv:1801.06146, section 3.1, with 1 / 2.6) and ELECTRA (arXiv:2003.10555, with 0.8) fine-tuned. With
    `unfreeze_every` N, the last layer learns from the first step, and one layer more every N steps (Howard & Ruder,
    section 3.3).

    What a frozen layer is spared is the whole update, weight decay too. Its gradient is computed nevertheless, counts
    in `experiment.clip_norm`, and is known to the moments of the optimizer when the layer's turn comes.

    Args:
      optimizer: makes the updates; its learning rate is that of the last layer.
      stacked: paths of the parameters whose first axis is that of blocks (given by the program).
      decay: from layer to layer.
      unfreeze_every: steps from one layer's turn to that of the one below it; 0: all learn from the first step.
      order: regular expressions over paths, from the input to the output; the first that is found in a path says in
        which group a parameter is. The blocks of a group, stacked or numbered, are a layer each, and what else is in it
        belongs to its last one.
    """

    TINY: ClassVar[str] = "layerwise.optimizer = @adamw\nlayerwise.decay = 0.9\nadamw.learning_rate = 0.01"

    optimizer: Optimizer
    stacked: frozenset[str] = frozenset()
    decay: Positive = 1.0
    unfreeze_every: Natural = 0
    order: tuple[str, ...] = FROM_THE_INPUT

    @property
    def learning_rate(self) -> Any:
        """That of the last layer, for the records."""
        return getattr(self.optimizer, "learning_rate", None)

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
        """The update rule for parameters with these roles by path."""
        check_order(self.order, roles)

        def update(
            updates: Any, state: optax.EmptyState, params: Any = None, *, step: Int[Array, ""], **others: Any
        ) -> tuple[Any, optax.EmptyState]:
            heights = below_the_last(self.order, updates, self.stacked)
            return {path: leaf * self._share(heights[path], step, leaf) for path, leaf in updates.items()}, state

        scaled = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
        return optax.chain(optax.with_extra_args_support(self.optimizer.transformation(roles)), scaled)

    def _share(self, below: np.ndarray, step: Int[Array, ""], leaf: Array) -> Float[Array, "..."]:
        """What part of an update is made, along its first axis where that is one of blocks."""
        share = jnp.where(step >= below * self.unfreeze_every, self.decay ** jnp.asarray(below, jnp.float32), 0.0)
        return share.reshape(share.shape + (1,) * (leaf.ndim - share.ndim))


def check_order(order: Sequence[str], paths: Iterable[str]) -> None:
    """ConfigError for a pattern that is none, or a path that no pattern is found in."""
    for pattern in order:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"layerwise.order: '{pattern}' is no regular expression: {error}.") from None
    lost = [path for path in paths if not any(re.search(pattern, path) for pattern in order)]
    if lost:
        raise ConfigError(
            f"layerwise.order has no pattern that is found in '{lost[0]}'. Add one; '' takes all that is left."
        )


def below_the_last(order: Sequence[str], leaves: Mapping[str, Any], stacked: frozenset[str]) -> dict[str, np.ndarray]:
    """How many layers lie between each parameter and the last layer: of stacked blocks, (L,); of others, ().

    Example, with the usual order and two stacked blocks:
      embedding/embedding: 3, blocks/mlp/up/kernel: [2, 1], head/kernel: 0
    """
    groups = {path: next(i for i, pattern in enumerate(order) if re.search(pattern, path)) for path in leaves}
    blocks = {path: _blocks(path, leaf, path in stacked) for path, leaf in leaves.items()}
    sizes = dict.fromkeys(sorted(set(groups.values())), 1)
    for path, own in blocks.items():
        if own is not None:
            sizes[groups[path]] = max(sizes[groups[path]], int(own.max()) + 1)
    ends = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
    top = max(ends.values(), default=0)
    begins = {group: ends[group] - sizes[group] for group in sizes}
    return {
        path: np.asarray(top - ends[groups[path]] if own is None else top - 1 - begins[groups[path]] - own)
        for path, own in blocks.items()
    }


def _blocks(path: str, leaf: Any, stacked: bool) -> np.ndarray | None:
    """The numbers of the blocks that a parameter is of; None where it is of none."""
    number = NUMBERED.search(path)
    if stacked:
        return np.arange(leaf.shape[0])
    return np.asarray(int(number[1])) if number else None
