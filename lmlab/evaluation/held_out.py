"""A loss's own metrics on data that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from lmlab.evaluation.split_sums import sums_over
from lmlab.ranges import Count
from lmlab.registry import evaluators
from lmlab.training.carrying import sums_of

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("held_out")
@dataclass(frozen=True)
class HeldOut:
    """The experiment's loss and its metrics on a split, without dropout: exact totals over exact totals.

    What the loss draws (masks, noise) is a function of each row's content, the same at every evaluation. A loss that
    carries something from batch to batch does so here: see `split_sums.CarriedSums`.

    Metrics: `<split>/loss` and `<split>/<metric>` for every metric that the loss reports.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
    """

    TINY: ClassVar[str] = "held_out.batches = 3"

    split: str = "valid"
    batches: Count | None = 20

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          DataError: the dataset has no such split, or there is nothing to predict in it.
        """

        def sums(params: Params, batch: Mapping[str, Array], carry: Any) -> tuple[dict[str, tuple[Any, Any]], Any]:
            model = program.model.bind(params)
            output, carry = sums_of(program.loss, model, batch, carry, None, jnp.zeros((), jnp.int32))
            return {"loss": (output.total, output.weight), **output.metrics}, carry

        summed = sums_over(program, self.split, self.batches, sums, program.loss)

        def measure(state: State) -> dict[str, float]:
            found = summed(state).items()
            # What did not occur in the split has no mean.
            means = {name: float(total / weight) for name, (total, weight) in found if weight}
            whole = getattr(program.loss, "whole", None)
            if whole is not None:
                means["loss"] = whole(means)
            return {f"{self.split}/{name}": mean for name, mean in means.items()}

        return measure
