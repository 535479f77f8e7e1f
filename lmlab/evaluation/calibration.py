"""Whether a run's model is right as often as it is sure of being so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import CausalLM, LabelBatch, TokenBatch
from lmlab.errors import ConfigError
from lmlab.evaluation.metrics.calibration import BINS, Calibration, fitted_temperature, of_scores
from lmlab.evaluation.split_sums import SplitRows
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("calibration")
@dataclass(frozen=True)
class CalibrationReport:
    """Expected calibration error and Brier score of labels or, of a causal language model, of next tokens.

    Metrics, each named `<split>/...`: `ece/bins-15`, `brier`, `nats`, `accuracy` and `confidence`, as
    `metrics.calibration` has them; with a `fit_split` also these as `scaled/...` and `scaled/temperature`.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
      bins: of equal width.
      fit_split: of labels: a temperature is fitted on this split (Guo et al. 2017, section 4.2), which must not be the
        one that is measured; None: none is.
    """

    TINY: ClassVar[str] = "calibration.batches = 2"

    split: str = "valid"
    batches: Count | None = None
    bins: Count = BINS
    fit_split: str | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: nothing is predicted that could be calibrated, or the temperature is fitted where it is measured.
          DataError: the dataset has no such split.
        """
        if self.fit_split == self.split:
            raise ConfigError(f"calibration.fit_split = '{self.split}' is the split that is measured. Fit on another.")
        loss: Any = program.loss
        if loss.reads is LabelBatch and hasattr(loss, "scores"):
            return self._of_labels(program, loss)
        if loss.reads is TokenBatch and isinstance(program.abstract_model, CausalLM) and self.fit_split is None:
            return self._of_tokens(program)
        raise ConfigError(
            "the evaluator 'calibration' needs a loss that scores labels, or a CausalLM with next-token batches and no "
            f"fit_split; the model is '{program.experiment.model.name}', the loss '{program.experiment.loss.name}'."
        )

    def _of_labels(self, program: Program, loss: Any) -> Callable[[State], Mapping[str, float]]:
        def rows(params: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
            scores = loss.scores(program.model.bind(params), batch)
            return {"scores": scores, "gold": batch["labels"], "there": batch["weights"] > 0}

        measured = SplitRows(program, self.split, self.batches, rows)
        fitted_on = None if self.fit_split is None else SplitRows(program, self.fit_split, None, rows)

        def measure(state: State) -> dict[str, float]:
            scores, gold = _all(measured, state)
            found = self._counted(of_scores(scores, gold))
            if fitted_on is not None:
                temperature = fitted_temperature(*_all(fitted_on, state))
                scaled = self._counted(of_scores(scores / temperature, gold)) | {"temperature": temperature}
                found |= {f"scaled/{name}": value for name, value in scaled.items()}
            return {f"{self.split}/{name}": value for name, value in found.items()}

        return measure

    def _of_tokens(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        def rows(params: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
            model = program.model.bind(params)
            reading = {name: batch[name] for name in ("positions", "segment_ids") if name in batch}
            hidden = model.hidden(batch["tokens"], **reading)[0]
            log_p = jax.nn.log_softmax(model.project(hidden).astype(jnp.float32))
            own = jnp.take_along_axis(log_p, batch["targets"][..., None], axis=-1)[..., 0]
            return {
                "confidence": jnp.exp(log_p.max(-1)), "right": log_p.argmax(-1) == batch["targets"],
                "brier": jnp.exp(2 * log_p).sum(-1) - 2 * jnp.exp(own) + 1, "nats": -own,
                "there": batch["weights"] > 0,
            }  # fmt: skip

        measured = SplitRows(program, self.split, self.batches, rows)

        def measure(state: State) -> dict[str, float]:
            totals = Calibration(self.bins)
            for part in measured.parts(state):
                there = part.pop("there")
                totals.add(**{name: np.asarray(values)[there] for name, values in part.items()})
            return {f"{self.split}/{name}": value for name, value in totals.result().items()}

        return measure

    def _counted(self, items: Mapping[str, np.ndarray]) -> dict[str, float]:
        totals = Calibration(self.bins)
        totals.add(**items)
        return totals.result()


def _all(rows: SplitRows, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, C) and gold labels (N,) of the examples of a split."""
    parts = list(rows.parts(state))
    scores, gold, there = (np.concatenate([part[name] for part in parts]) for name in ("scores", "gold", "there"))
    return scores[there], gold[there]
