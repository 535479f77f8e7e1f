"""Whether a run's model has learned to predict tokens: a probability that nothing has taught is no measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmlab.contracts import ChoiceBatch, LabelBatch, SpanBatch, TagBatch
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.training.program import Program

OF_LABELS = (LabelBatch, TagBatch, SpanBatch, ChoiceBatch)
"""What losses read that leave the model's projection to the vocabulary as it was drawn."""


def check_learned_words(program: Program, asks: str) -> None:
    """Refuses a model that was trained from the start on labels, tags, spans or choices only.

    Args:
      program: of the run.
      asks: who asks, for the message.

    Raises:
      ConfigError: it was; its output over the vocabulary is random.
    """
    losses = [program.loss, *(part.loss for part in program.recipe.parts)]
    if program.experiment.init_from is None and all(loss.reads in OF_LABELS for loss in losses):
        raise ConfigError(
            f"{asks} needs a model that has learned to predict tokens: this run's loss "
            f"'{program.experiment.loss.name}' never taught it to, and it did not start from one that did (init_from)."
        )
