"""How well texts are labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np

from lmlab.contracts import LabelBatch, LossOutput
from lmlab.errors import ConfigError
from lmlab.evaluation.metrics.classification import Classification
from lmlab.evaluation.split_sums import SplitSums
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("classification_report")
@dataclass(frozen=True)
class ClassificationReport:
    """Accuracy, and precision, recall and F1 over labels, of a split; and the loss on it.

    From a confusion matrix, which is summed over batches and devices. A gold label that no training example has counts
    as an error. Where scikit-learn is not installed (the extra `metrics`), there is the accuracy only.

    Metrics, each named `<split>/...`: `loss` and `nats`, `accuracy`, and `precision`, `recall` and `f1`, each `/micro`
    and `/macro`, as `metrics.classification` has them.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
    """

    TINY: ClassVar[str] = """
    experiment.loss = @classification
    classification_report.batches = 2
    """

    split: str = "valid"
    batches: Count | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the loss does not score labels.
          DataError: the dataset has no such split.
        """
        loss, labels = check_scores(program, LabelBatch, "classification_report"), len(program.data.labels)

        def sums(params: Params, batch: Mapping[str, Array]) -> dict[str, Any]:
            model, gold = program.model.bind(params), batch["labels"]
            output = LossOutput(*loss(model, batch, None, jnp.zeros((), jnp.int32)))
            predicted = loss.scores(model, batch).argmax(-1)
            places = jnp.where(gold < 0, labels, gold), predicted
            counts = jnp.zeros((labels + 1, labels), jnp.int32).at[places].add(batch["weights"] > 0)
            return {"confusion": counts, "loss": (output.total, output.weight), "nats": output.metrics["nats"]}

        summed = SplitSums(program, self.split, self.batches, sums)

        def measure(state: State) -> dict[str, float]:
            found = summed(state)
            means = {name: float(found[name][0] / found[name][1]) for name in ("loss", "nats") if found[name][1]}
            return {f"{self.split}/{name}": value for name, value in (means | measures(found["confusion"])).items()}

        return measure


def measures(confusion: np.ndarray) -> dict[str, float]:
    """The metrics of a confusion matrix (C + 1, C), the last row being for labels that training does not have."""
    try:
        totals = Classification(confusion.shape[1])
    except ConfigError:
        count = int(confusion.sum())
        return {"accuracy": int(np.trace(confusion)) / count} if count else {}
    totals.confusion += confusion
    return totals.result()


def check_scores(program: Program, reads: type, evaluator: str) -> Any:
    """The program's loss; ConfigError unless it reads such batches and scores what is to be found."""
    loss: Any = program.loss
    if loss.reads is reads and hasattr(loss, "scores"):
        return loss
    raise ConfigError(
        f"the evaluator '{evaluator}' needs a loss that reads a {reads.__name__} and has scores; the loss "
        f"'{program.experiment.loss.name}' has not. Choose other evaluators: experiment.evaluators = [...]   (lmlab "
        "list evaluators)"
    )
