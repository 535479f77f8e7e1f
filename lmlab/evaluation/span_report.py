"""How well answers are found in a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from lmlab.contracts import LossOutput, SpanBatch
from lmlab.evaluation.classification_report import check_scores
from lmlab.evaluation.split_sums import SplitSums
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State

Places = tuple["Int[Array, ' B']", "Int[Array, ' B']"]


@evaluators.register("span_report")
@dataclass(frozen=True)
class SpanReport:
    """Exact match and F1 of the places of answers, against the first accepted one; and the loss.

    These are shares of questions from 0 to 1, over tokens: a stricter measure than SQuAD's over words of texts (for
    which see `metrics.answers`), of which every accepted answer serves. The answer given is the stretch of the second
    text with the highest sum of its two scores (Devlin et al. 2019, sections 4.2 and 4.3). An answer that a row has no
    room for counts as none.

    Metrics, each named `<split>/...`: `loss` and `nats`; `exact_match/positions` and `f1/positions`; these with
    `-has-answer` and `-no-answer`, over the questions that have one and over the others, where there are such.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
      longest: tokens of an answer at most.
      null_threshold: how much more the best answer must score than none at all to be given; None: always one is.
    """

    TINY: ClassVar[str] = """
    experiment.loss = @span
    span_report.batches = 2
    """

    split: str = "valid"
    batches: Count | None = None
    longest: Count = 30
    null_threshold: float | None = 0.0

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the loss does not score places.
          DataError: the dataset has no such split.
        """
        loss = check_scores(program, SpanBatch, "span_report")

        def sums(params: Params, batch: Mapping[str, Array]) -> dict[str, Any]:
            model = program.model.bind(params)
            output = LossOutput(*loss(model, batch, None, jnp.zeros((), jnp.int32)))
            first, last = loss.scores(model, batch)
            found = best_spans(first, last, batch, self.longest, self.null_threshold)
            agreed = agreement(found, (batch["starts"], batch["ends"]), batch["weights"])
            return {"loss": (output.total, output.weight), "nats": output.metrics["nats"], **agreed}

        summed = SplitSums(program, self.split, self.batches, sums)

        def measure(state: State) -> dict[str, float]:
            found = summed(state)
            # A name of questions with an answer says more than none only where there are others.
            kinds = bool(found["f1/positions-no-answer"][1])
            named = {name: pair for name, pair in found.items() if pair[1] and (kinds or "-has-" not in name)}
            return {f"{self.split}/{name}": float(total / weight) for name, (total, weight) in named.items()}

        return measure


def best_spans(
    starts: Float[Array, "B T"],
    ends: Float[Array, "B T"],
    batch: Mapping[str, Array],
    longest: int,
    null_threshold: float | None,
) -> Places:
    """First and last places (B,) of the best stretch of each row's second text, separator aside; (0, 0) for none.

    Args:
      starts, ends: scores of the places.
      batch: with `segment_ids` and `type_ids`.
      longest: tokens of a stretch at most.
      null_threshold: see `SpanReport`.
    """
    there = (batch["segment_ids"] > 0) & (batch["type_ids"] == 1)
    there &= jnp.pad(there, ((0, 0), (0, 1)))[:, 1:]  # the last is the separator
    length = there.shape[1]
    distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
    possible = there[:, :, None] & there[:, None, :] & (distance >= 0) & (distance < longest)
    sums = jnp.where(possible, starts[:, :, None] + ends[:, None, :], -jnp.inf).reshape(-1, length * length)
    best, place = sums.max(1), sums.argmax(1)
    given = jnp.isfinite(best)
    if null_threshold is not None:
        given &= best > starts[:, 0] + ends[:, 0] + null_threshold
    return jnp.where(given, place // length, 0), jnp.where(given, place % length, 0)


def agreement(found: Places, gold: Places, weights: Float[Array, " B"]) -> dict[str, tuple[Array, Array]]:
    """Exact match and F1 over tokens, each (sum, weight), of all questions and by whether there is an answer."""
    overlap = jnp.minimum(found[1], gold[1]) - jnp.maximum(found[0], gold[0]) + 1
    sizes = found[1] - found[0] + gold[1] - gold[0] + 2
    f1 = 2 * jnp.maximum(overlap, 0) / sizes
    exact = (found[0] == gold[0]) & (found[1] == gold[1])
    there, has = (weights > 0).astype(jnp.float32), gold[1] > 0
    groups = {"": there, "-has-answer": there * has, "-no-answer": there * ~has}
    return {
        f"{name}/positions{group}": ((value * counted).sum(), counted.sum())
        for group, counted in groups.items()
        for name, value in (("exact_match", exact), ("f1", f1))
    }
