"""Whether a model writes the whole target of a source as it should be: what SCAN is measured by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from lmlab.contracts import EncoderDecoder, PairBatch
from lmlab.errors import ConfigError
from lmlab.evaluation.split_sums import SplitSums
from lmlab.generation.decoding import targets
from lmlab.generation.samplers import Greedy
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("exact_match")
@dataclass(frozen=True)
class ExactMatch:
    """Writes the targets of a split's sources greedily, and counts those that are right from the first id to the end.

    A target is written from its first input on, up to an end of text or `experiment.seq_len` tokens; one that is cut
    off there is as wrong as any other.

    Metrics: `<split>/exact_match`, the share of rows whose whole output equals the target; and the mean number of
    tokens before the end, `<split>/length/written` and `<split>/length/target`.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
    """

    TINY: ClassVar[str] = "exact_match.batches = 2\nexperiment.model = @rnn_seq2seq\nexperiment.loss = @seq2seq"

    split: str = "valid"
    batches: Count | None = 20

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the model is not an EncoderDecoder, or the loss does not read pairs.
          DataError: the dataset has no such split, or there is nothing to predict in it.
        """
        if not isinstance(program.abstract_model, EncoderDecoder) or program.loss.reads is not PairBatch:
            raise ConfigError(
                "the evaluator 'exact_match' needs an EncoderDecoder and a loss that reads pairs of texts; the model "
                f"is '{program.experiment.model.name}', the loss '{program.experiment.loss.name}'. "
                "Choose other evaluators: experiment.evaluators = [...]   (lmlab list evaluators)"
            )
        end = program.one_dataset.special_ids["end_of_text"]

        def sums(params: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
            return matches(program.model.bind(params), batch, end)

        summed = SplitSums(program, self.split, self.batches, sums)

        def measure(state: State) -> dict[str, float]:
            found = {name: value.item() for name, value in summed(state).items()}
            rows = found.pop("rows")
            return {f"{self.split}/{name}": value / rows for name, value in found.items()} if rows else {}

        return measure


def matches(model: EncoderDecoder, batch: Mapping[str, Array], end_of_text: int) -> dict[str, Array]:
    """Sums over the rows of a PairBatch that have a target, int32: `rows`, those that match, and lengths."""
    memory = model.encode_source(batch["source_tokens"], segment_ids=batch["source_segment_ids"])
    asked = batch["weights"] > 0
    written = targets(model, memory, batch["tokens"][:, 0], asked.shape[1], Greedy(), end_of_text)
    rows = asked.any(1)
    # A target ends with the end of text, so that what equals it up to there has ended, too.
    right = jnp.where(asked, written == batch["targets"], True).all(1)
    lengths = {"written": (written != end_of_text).sum(1), "target": (asked & (batch["targets"] != end_of_text)).sum(1)}
    sums = {"rows": rows, "exact_match": rows & right}
    sums |= {f"length/{name}": jnp.where(rows, count, 0) for name, count in lengths.items()}
    return {name: values.sum(dtype=jnp.int32) for name, values in sums.items()}
