"""Targets as a run's model writes them, compared as texts with those of the data: BLEU, chrF, ROUGE, SQuAD."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from lmlab.contracts import CausalLM, Dataset, EncoderDecoder, TextPair
from lmlab.data.features.pairs import target_start
from lmlab.errors import ConfigError
from lmlab.evaluation.examples_of import examples_of
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.answers import Squad
from lmlab.evaluation.metrics.sequences import SequenceErrors
from lmlab.evaluation.metrics.summaries import Rouge
from lmlab.evaluation.metrics.translation import BLEU, ChrF
from lmlab.generation.beam import BeamOptions, BeamSearch
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.writing import positions
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.training.program import Program
    from lmlab.training.state import State

Measure = Literal["bleu", "chrf", "chrf++", "rouge", "squad", "words"]

ROWS = 16
"""Targets that are written side by side."""
TOGETHER = 32
"""Prompts of a causal model whose lengths lie between the same multiples of this share a compiled program."""


@evaluators.register("target_report")
@dataclass(frozen=True)
class TargetReport:
    """Writes the target of every source of a split, and compares the texts with the split's own.

    An encoder-decoder reads the source, a causal model the source as it was trained to read pairs: with a separator
    behind it. A source that is longer than `experiment.source_len` (a causal model's: `experiment.seq_len`) loses its
    end, and is counted; none is left out. References are the texts of the data, not what a tokenizer makes of them.

    Metrics, each named `<split>/...`, as `lmlab.evaluation.metrics` has them: `bleu/sacrebleu-13a`; `chrf/sacrebleu`;
    `rouge1/f1-rouge-score` and so on; `exact_match/squad-1.1` and `f1/squad-1.1`, the target being the answer;
    `word_error_rate` and `sequence_exact_match`. And `examples`, and of these `sources_cut`.

    Args:
      split: which part of the data.
      examples: how many pairs, evenly over the split; None is all of them.
      measures: what is measured. `words` splits at white space.
      beams: 1 writes the most probable token each time; more search for the most probable target.
      length_penalty: of the search: ranks by log p / length^length_penalty.
      length: the most tokens of a target, its end included; None: `experiment.seq_len`.
      tokenize: sacrebleu's tokenizer for BLEU, which its name then carries.
      force: compares by BLEU and chrF although the references look tokenised.
      dataset: where the pairs come from; None: from the run's own dataset.
    """

    TINY: ClassVar[str] = """
    experiment.model = @rnn_seq2seq
    experiment.loss = @seq2seq
    experiment.dataset = @tsv_pairs
    experiment.tokenizer = @bytes
    target_report.examples = 3
    target_report.measures = ['bleu', 'rouge', 'words']
    """

    split: str = "valid"
    examples: Count | None = None
    measures: tuple[Measure, ...] = ("bleu", "chrf")
    beams: Count = 1
    length_penalty: float = 1.0
    length: Count | None = None
    tokenize: str = "13a"
    force: bool = False
    dataset: Dataset | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: the model writes no targets, the data are no pairs, or the library of a metric is missing.
          DataError: the dataset has no such split.
        """
        pairs = examples_of(program, self.dataset, self.split, self.examples, TextPair, "target_report")
        writer = TargetWriter(program, self.length or program.experiment.seq_len, self.beams, self.length_penalty)
        sources, cut = writer.sources([pair.text for pair in pairs])
        self._totals()  # a library that is missing is missed now

        def measure(state: State) -> dict[str, float]:
            written = writer.write(local_params(program, state), sources)
            found: dict[str, float] = {"examples": len(pairs), "sources_cut": cut}
            for totals in self._totals():
                words = isinstance(totals, SequenceErrors)
                references = [[pair.target.split() if words else pair.target] for pair in pairs]
                totals.add([text.split() for text in written] if words else written, references)
                found |= totals.result()
            return {f"{self.split}/{name}": value for name, value in found.items()}

        return measure

    def _totals(self) -> list[Any]:
        made: dict[Measure, Callable[[], Any]] = {
            "bleu": lambda: BLEU(tokenize=self.tokenize, force=self.force),
            "chrf": lambda: ChrF(force=self.force),
            "chrf++": lambda: ChrF(word_order=2, force=self.force),
            "rouge": Rouge,
            "squad": Squad,
            "words": SequenceErrors,
        }
        return [made[measure]() for measure in self.measures]


class TargetWriter:
    """Writes targets of sources with a program's model, many side by side, in few shapes.

    Args:
      program: of the run.
      length: the most tokens of a target, its end included.
      beams: 1 is greedy.
      length_penalty: of the search with several.

    Raises:
      ConfigError: the model writes no targets of sources.
    """

    def __init__(self, program: Program, length: int, beams: int = 1, length_penalty: float = 1.0) -> None:
        model, name = program.abstract_model, program.experiment.model.name
        tokenizer, special = program.tokenizer, program.data.special_ids
        self._told = isinstance(model, EncoderDecoder) and not isinstance(model, CausalLM)
        if not isinstance(model, CausalLM | EncoderDecoder) or tokenizer is None:
            raise ConfigError(
                "targets are written by an EncoderDecoder or a CausalLM that learned from texts; the run's model is "
                f"'{name}'{'' if tokenizer is not None else ', and its data are ids'}."
            )
        self._tokenizer, self._length = tokenizer, length
        self._end = end = tokenizer.end_of_text
        self._separator = special.get("separator", end)
        limit = positions(program.model)
        settings = program.experiment
        self._room = (settings.source_len or settings.seq_len) - 1 if self._told else settings.seq_len - 2
        self._together = self._room + 1 if self._told else TOGETHER
        options = BeamOptions(beams, length_penalty)
        self._search = BeamSearch(program.model, options, end_of_text=end, limit=limit) if beams > 1 else None
        self._decoder = Decoder(program.model, Greedy(), end_of_text=end, limit=limit)

    def sources(self, texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
        """The ids of sources as the model was trained to read them, and how many lost their end."""
        ids = self._tokenizer.encode_batch(texts)
        cut = sum(len(row) > self._room for row in ids)
        before, behind = ([], [self._end]) if self._told else ([self._end], [self._separator])
        return [np.concatenate([before, row[: self._room], behind]).astype(np.int32) for row in ids], cut

    def write(self, params: Mapping[str, Array], sources: Sequence[np.ndarray]) -> list[str]:
        """The target of each source, in their order, without white space around it."""
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        found = [""] * len(sources)
        for chosen in _batches(order):
            rows = [sources[i] for i in chosen]
            for i, ids in zip(chosen, self._written(params, rows), strict=True):
                found[i] = self._tokenizer.decode(ids).strip()
        return found

    def _written(self, params: Mapping[str, Array], rows: list[np.ndarray]) -> list[np.ndarray]:
        """The ids of the targets of one batch, without the end of text."""
        begun = [np.array([target_start(self._tokenizer)], np.int32)] * len(rows)
        prompts, told = (begun, rows) if self._told else (rows, None)
        if self._search is None:
            return self._decoder.complete(params, prompts, length=self._length, sources=told, together=self._together)
        found = self._search.search(params, prompts, length=self._length, sources=told, together=self._together)
        return [hypotheses[0].tokens for hypotheses in found]


def _batches(order: Sequence[int]) -> Iterator[list[int]]:
    """Batches of one size; the last is filled up with its own last row, which is written once more."""
    for first in range(0, len(order), ROWS):
        some = list(order[first : first + ROWS])
        yield some + some[-1:] * (ROWS - len(some))
