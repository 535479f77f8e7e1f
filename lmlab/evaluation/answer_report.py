"""Answers that a run's model finds in a text, as texts: scored as SQuAD's scripts score them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np

from lmlab.contracts import Dataset, Question, SpanBatch
from lmlab.data.features.labelled import marked_parts
from lmlab.data.features.rows import Setting
from lmlab.errors import ConfigError
from lmlab.evaluation.classification_report import check_scores
from lmlab.evaluation.examples_of import examples_of
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.answers import Squad
from lmlab.evaluation.span_report import best_spans
from lmlab.evaluation.token_scores import batches_by_length
from lmlab.generation.writing import positions
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array, Int

    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("answer_report")
@dataclass(frozen=True)
class AnswerReport:
    """Exact match and F1 of the answers' texts, against every accepted one, by SQuAD's scripts: from 0 to 100.

    The answer is the stretch of the context with the highest sum of its two scores, as in `span_report`, which counts
    places. Where some question has no answer the numbers are those of SQuAD 2.0, and a model may give none; else they
    are those of 1.1, and it always gives one. A context loses the end that a row has no room for, and is counted; no
    question is left out.

    Metrics, each named `<split>/...`: `exact_match/squad-1.1` and `f1/squad-1.1`, or these of `squad-2.0`, also with
    `-has-answer` and `-no-answer`; `questions`, and of these `contexts_cut`.

    Args:
      split: which part of the data.
      examples: how many questions, evenly over the split; None is all of them.
      longest: tokens of an answer at most.
      null_threshold: of SQuAD 2.0: how much more the best answer must score than none at all to be given.
      dataset: where the questions come from; None: from the run's own dataset.
    """

    TINY: ClassVar[str] = """
    experiment.loss = @span
    answer_report.examples = 3
    """

    split: str = "valid"
    examples: Count | None = None
    longest: Count = 30
    null_threshold: float = 0.0
    dataset: Dataset | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: the loss does not score places, or the data are no questions about texts.
          DataError: the dataset has no such split.
        """
        loss = check_scores(program, SpanBatch, "answer_report")
        asked = examples_of(program, self.dataset, self.split, self.examples, Question, "answer_report")
        if any(one.choices for one in asked):
            raise ConfigError("the evaluator 'answer_report' reads answers that are a part of the text, not choices.")
        version: Literal["1.1", "2.0"] = "1.1" if all(one.answers for one in asked) else "2.0"
        null_threshold = self.null_threshold if version == "2.0" else None
        finder = AnswerFinder(program, loss, self.longest, null_threshold)
        rows = [finder.row(one) for one in asked]

        def measure(state: State) -> dict[str, float]:
            totals = Squad(version)
            totals.add(finder(local_params(program, state), rows), [one.answers for one in asked])
            found = totals.result() | {"questions": len(asked), "contexts_cut": sum(row.cut for row in rows)}
            return {f"{self.split}/{name}": value for name, value in found.items()}

        return measure


class AskedRow(NamedTuple):
    """A question with its context, as the model reads it.

    Attributes:
      ids: of the row, with `types`, 1 in the context.
      types: as long.
      context: the text.
      offsets: the characters behind each token of it, (n, 2).
      cut: whether the row holds its beginning only.
    """

    ids: Int[np.ndarray, " T"]
    types: Int[np.ndarray, " T"]
    context: str
    offsets: Int[np.ndarray, "n 2"]
    cut: bool

    def text(self, first: int, last: int) -> str:
        """The context from one place of the row to another; nothing where both are 0."""
        if last == 0:
            return ""
        begin = int(self.types.argmax())
        return self.context[self.offsets[first - begin, 0] : self.offsets[last - begin, 1]].strip()


class AnswerFinder:
    """Finds answers with a program's model, many side by side, in few shapes.

    Args:
      program: of the run.
      loss: scores places.
      longest: tokens of an answer at most.
      null_threshold: as in `span_report`.
    """

    def __init__(self, program: Program, loss: Any, longest: int, null_threshold: float | None) -> None:
        self._setting = Setting(program.experiment.seq_len, program.tokenizer)
        self._limit = positions(program.model)

        def read(params: Mapping[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
            starts, ends = loss.scores(program.model.bind(params), batch)
            return best_spans(starts, ends, batch, longest, null_threshold)

        self._read = jax.jit(read)

    def row(self, asked: Question) -> AskedRow:
        """What is read, as the loss reads it in training."""
        tokenizer, room = self._setting.text_tokenizer, self._setting.seq_len - 3
        question = tokenizer.encode(asked.question)[: max(room, 0)]
        context = tokenizer.encode(asked.context)
        kept = context[: max(room - len(question), 0)]
        ids, types = marked_parts((question, kept), self._setting)
        return AskedRow(ids, types, asked.context, tokenizer.offsets(asked.context), len(kept) < len(context))

    def __call__(self, params: Mapping[str, Array], rows: Sequence[AskedRow]) -> list[str]:
        """The answer to each question; empty where none is given."""
        found = [""] * len(rows)
        # Batches have one id more than is read.
        for chosen, ids in batches_by_length([np.append(row.ids, 0) for row in rows], self._limit):
            types, there = np.zeros((2, len(ids), ids.shape[1] - 1), np.int32)
            for b, i in enumerate(chosen):
                types[b, : len(rows[i].types)], there[b, : len(rows[i].ids)] = rows[i].types, 1
            batch = {"tokens": ids[:, :-1], "segment_ids": there, "type_ids": types}
            first, last = jax.device_get(self._read(params, batch))
            for b, i in enumerate(chosen):
                found[i] = rows[i].text(int(first[b]), int(last[b]))
        return found
