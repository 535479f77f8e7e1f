"""The coordinate check: how the size of a model's activations follows its width after a few steps of training.

Under muP (`nn.mup`) an entry of the residual stream, and a logit, is as large in a wide model as in a narrow one
(Yang et al. 2021, arXiv:2203.03466, section C.1); under the standard parametrisation they grow with the width, the more
the longer it learns, which is why the best learning rate changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmlab.contracts import CausalLM, FrozenDict, Spec
from lmlab.errors import ConfigError, NonFiniteError
from lmlab.evaluation.layers import depth, first_blocks
from lmlab.parallel.mesh import Mesh
from lmlab.training.program import Program

if TYPE_CHECKING:
    from jax import Array

    from lmlab.config import Resolved
    from lmlab.nn.functional import ModelDef, Params

WIDTH = "width"
"""The parameter of a model that is varied."""


@dataclass(frozen=True)
class Coordinates:
    """The mean size of the entries at one place of a model, at every width.

    Attributes:
      place: `block 1`, ..., `logits`.
      widths: of the models.
      begun: mean |x| before the first step.
      sizes: mean |x| after the steps.
      changes: mean |x - x before the first step|.
    """

    place: str
    widths: tuple[int, ...]
    begun: tuple[float, ...]
    sizes: tuple[float, ...]
    changes: tuple[float, ...]

    @property
    def slopes(self) -> tuple[float, float, float]:
        """With how many-th power of the width `begun`, `sizes` and `changes` grow, by least squares of logarithms."""
        each = (self.begun, self.sizes, self.changes)
        begun, sizes, changes = (float(np.polyfit(np.log(self.widths), np.log(values), 1)[0]) for values in each)
        return begun, sizes, changes


def coordinates(resolved: Resolved, widths: Sequence[int], steps: int) -> list[Coordinates]:
    """Trains the configured model at every width for some steps, and looks at its states and logits on the first batch.

    Args:
      resolved: the experiment; what it says of the width does not count.
      widths: at least two.
      steps: of training.

    Raises:
      ConfigError: the model has no width, no blocks, or cannot be as wide.
      NonFiniteError: an activation is not a number.
    """
    program = Program(_plain(resolved), partitioner=Mesh(data=1))
    if WIDTH not in program.experiment.model.kwargs:
        raise ConfigError(f"'{program.experiment.model.name}' has no parameter 'width' to vary.")
    found = [_at_width(program.at({f"model.{WIDTH}": width}), steps) for width in widths]
    return [
        Coordinates(place, tuple(widths), *(tuple(one[place][k] for one in found) for k in range(3)))
        for place in found[0]
    ]


def _plain(resolved: Resolved) -> Resolved:
    """The experiment with one step per dispatch and the whole batch at once."""
    kwargs = FrozenDict({**resolved.spec.kwargs, "microbatches": 1, "steps_per_dispatch": 1})
    return replace(resolved, spec=Spec(resolved.spec.kind, resolved.spec.name, kwargs))


def _at_width(program: Program, steps: int) -> dict[str, tuple[float, float, float]]:
    """Mean |x| before and after the steps, and of the change, by place."""
    places = _Places(program)
    batches = [program.data.train.batch(k) for k in range(max(steps, 1))]
    state = program.init_state()
    before = places(state.params, batches[0]["tokens"])
    step = program.compile_step()
    for batch in batches[:steps]:
        state, _ = step(state, program.partitioner.place(batch))
    after = places(state.params, batches[0]["tokens"])
    found = {
        place: tuple(float(np.abs(x).mean(dtype=np.float64)) for x in (before[place], x, x - before[place]))
        for place, x in after.items()
    }
    if strange := [place for place, sizes in found.items() if not np.isfinite(sizes).all()]:
        width = program.experiment.model.kwargs[WIDTH]
        raise NonFiniteError(f"at width {width}, {strange[0]} is not finite after {steps} steps. Lower the rate.")
    return found  # type: ignore[return-value]


class _Places:
    """What a causal model has behind every block, not normalised, and its logits.

    Args:
      program: of the model.
    """

    def __init__(self, program: Program) -> None:
        model, blocks, module = program.model, depth(program.model), program.abstract_model
        if blocks is None or not (
            isinstance(module, CausalLM) and hasattr(module, "blocks") and hasattr(module, "norm")
        ):
            raise ConfigError(
                f"'{program.experiment.model.name}' is no causal model of one stack of blocks around a residual stream."
            )
        self._model, self._blocks = model, blocks
        self._call = jax.jit(self._all)

    def __call__(self, params: Params, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Place -> (B, T, D or V), float32."""
        return {place: np.asarray(x, np.float32) for place, x in self._call(params, tokens).items()}

    def _all(self, params: Mapping[str, Array], tokens: Array) -> dict[str, Array]:
        found = {}
        for count in range(1, self._blocks + 1):
            model, own = first_blocks(self._model, params, count)
            found[f"block {count}"] = _stream(model, own, tokens)
        bound = self._model.bind(params)
        return {**found, "logits": bound.project(bound.hidden(tokens)[0])}


def _as_it_is(x: Array) -> Array:
    return x


def _stream(model: ModelDef[Any], params: Mapping[str, Array], tokens: Array) -> Array:
    """The residual stream behind the last block: without the norm that stands there."""
    bound = model.bind(params)
    if bound.norm is not None:
        bound.norm = _as_it_is
    return bound.hidden(tokens)[0]
