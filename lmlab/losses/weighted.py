"""A sum of losses on one batch, or each on a batch of its own: several questions to one model."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Int, Key

from lmlab.batches import task_batch
from lmlab.contracts import CausalLM, Loss, LossOutput, Ref, TokenBatch
from lmlab.errors import ConfigError
from lmlab.nn.auxiliary import report
from lmlab.nn.randomness import keys_for
from lmlab.ranges import NonNegative
from lmlab.registry import losses, name_of


@losses.register("weighted")
@dataclass(frozen=True)
class Weighted:
    """The weighted sum of losses, each being the mean that it is by itself: multi-task learning (Caruana 1997).

    They read the same batch, or with the dataset `tasks` each that of the dataset which stands in its place.

    What is minimised is the sum over the parts of their weight · total / (what they divide by): a part that predicts
    few tokens of a batch does not count less for that, and one whose weight is 0 is measured only. Each part draws for
    itself, and has a head of its own where it needs one. A step's `loss` is that of the first part, and the others are
    what the model adds to it; an evaluation's is the whole sum.

    Needs: what every one of the losses does (of the one that stands here if no other is named: CausalLM).
    Metrics: those of the parts, each behind its part's name and a stroke, and `<part>/loss`; of parts of one name, the
    place in the list is behind the name.

    Example:
      weighted.losses = [@classification, @contrastive]
      weighted.weights = [1.0, 0.1]

      experiment.dataset = @tasks                           # a dataset for each of the losses
      tasks.datasets = [@r8, @brown]

    Args:
      losses: the parts.
      weights: of each of them, in their order.

    Raises:
      ConfigError: there are not as many weights as losses, or one of the losses has a teacher.
    """

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch
    PARTS: ClassVar[str] = "losses"
    TINY: ClassVar[str] = """
    weighted.losses = [@autoregressive, @smoothed/autoregressive]
    weighted.weights = [0.7, 0.3]
    smoothed/autoregressive.label_smoothing = 0.2
    """

    losses: tuple[Loss, ...] = (Ref("autoregressive"),)  # type: ignore[assignment]
    weights: tuple[NonNegative, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.losses) != len(self.weights) or not self.losses:
            raise ConfigError(
                f"weighted.losses names {len(self.losses)} losses, and weighted.weights has {len(self.weights)} "
                "numbers: give each loss its weight."
            )
        if taught := [name for name, part in self.named.items() if hasattr(part, "teacher")]:
            raise ConfigError(
                f"weighted.losses: '{taught[0]}' has a teacher, which a model has for the whole loss only. Set "
                f"experiment.loss = @{taught[0]}, which mixes the loss of the targets in itself."
            )
        object.__setattr__(self, "reads", self.losses[0].reads)

    @property
    def named(self) -> dict[str, Loss]:
        """The parts by the names that their metrics have."""
        names = [name_of(part) for part in self.losses]
        unique = [f"{name}_{k}" if names.count(name) > 1 else name for k, name in enumerate(names)]
        return dict(zip(unique, self.losses, strict=True))

    @property
    def together(self) -> int:
        """Rows that none of the parts lets be split."""
        return math.lcm(*(getattr(part, "together", 1) for part in self.losses))

    def make_head(self, width: int, rngs: nnx.Rngs) -> nnx.Dict[Any]:
        """The heads of the parts that have one, by their names."""
        made = {name: part.make_head(width, rngs) for name, part in self.named.items() if hasattr(part, "make_head")}
        return nnx.Dict(made)

    def whole(self, means: Mapping[str, float]) -> float:
        """What is minimised, of the means of the metrics; a part that nothing was to be predicted for adds nothing."""
        each = zip(self.named, self.weights, strict=True)
        return sum(weight * means.get(f"{name}/loss", 0.0) for name, weight in each)

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch of the first part, with the metrics of all; the trainer is told of the other parts."""
        outputs = {}
        for place, (name, part) in enumerate(self.named.items()):
            own = keys if keys is None or place == 0 else keys_for(keys, f"weighted/{place}")
            outputs[name] = LossOutput(*part(_with_head(model, name), task_batch(batch, place), own, step))
        metrics = {f"{name}/{metric}": pair for name, o in outputs.items() for metric, pair in o.metrics.items()}
        metrics |= {f"{name}/loss": (output.total, output.weight) for name, output in outputs.items()}
        for (name, output), weight in list(zip(outputs.items(), self.weights, strict=True))[1:]:
            report(name, output.total, output.weight, weight)
        first = next(iter(outputs.values()))
        return LossOutput(self.weights[0] * first.total, first.weight, metrics)


def _with_head(model: Any, name: str) -> Any:
    """The model as a part sees it: its head is the model's."""
    if name not in model.task_head:
        return model
    seen = copy.copy(model)
    seen.task_head = model.task_head[name]
    return seen
