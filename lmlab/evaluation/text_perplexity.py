"""Perplexity of whole texts by a named protocol: how much each token may look back at, and what is divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from lmlab.contracts import CausalLM, Dataset, Text
from lmlab.errors import ConfigError
from lmlab.evaluation.examples_of import examples_of
from lmlab.evaluation.learned_words import check_learned_words
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.perplexity import measures
from lmlab.evaluation.token_scores import TokenScorer
from lmlab.generation.writing import positions
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Int

    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("text_perplexity")
@dataclass(frozen=True)
class TextPerplexity:
    """Perplexity per token, per word and per byte of texts that are read in sliding windows.

    Each token of a text is predicted once. A window holds `window` predictions, and each begins `stride` tokens behind
    the one before it; in all but the first only the last `stride` of them count, so that each of these looks back at
    `window` - `stride` tokens at least. A stride as long as the window is the cheapest protocol and the most
    pessimistic one; a stride of 1 gives every token all the context that there is.

    With `texts` `apart` each text is a document of its own behind an end of text, and its own end is predicted; with
    `joined` they are one stream with ends of text between, as papers read WikiText. Bytes and words are those of the
    texts themselves (words split at white space), whatever the tokenizer loses; an end of text is a token, but neither
    a byte nor a word. So `ppl/word` and `ppl/byte` compare models of different tokenizers, and `ppl/token` does not.

    Metrics, each named `<split>/...`, with the protocol behind it, `window-W-stride-S` or `...-joined`: `nats` and
    `tokens` (totals), `nats_per_token`, `ppl/token`, `ppl/word`, `ppl/byte`, `bits_per_byte`; and `unknown`, the tokens
    that the tokenizer does not know, where it may not.

    Args:
      split: which part of the data.
      examples: how many texts, evenly over the split; None is all of them.
      window: predictions in a window; None: as many as the model has positions, else `experiment.seq_len`.
      stride: tokens from one window to the next; None: the window, so that windows do not overlap.
      texts: whether a text sees the ones before it.
      dataset: where the texts come from; None: from the run's own dataset.
    """

    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    text_files.train = '{folder}/text/*.txt'
    text_files.valid_share = 0.1
    text_perplexity.examples = 2
    text_perplexity.stride = 3
    """

    split: str = "valid"
    examples: Count | None = None
    window: Count | None = None
    stride: Count | None = None
    texts: Literal["apart", "joined"] = "apart"
    dataset: Dataset | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: the model is no CausalLM or never learned to be one, the data are no texts, or the window is
            larger than what it reads.
          DataError: the dataset has no such split.
        """
        name, tokenizer = program.experiment.model.name, program.tokenizer
        if not isinstance(program.abstract_model, CausalLM) or tokenizer is None:
            raise ConfigError(
                f"the evaluator 'text_perplexity' needs a CausalLM that reads text; the model '{name}' "
                f"{'is none' if tokenizer else 'reads ids'}."
            )
        check_learned_words(program, "the evaluator 'text_perplexity'")
        window, stride = self._sizes(program)
        found = examples_of(program, self.dataset, self.split, self.examples, Text, "text_perplexity")
        documents = [np.append(tokenizer.encode(example.text), tokenizer.end_of_text) for example in found]
        streams = documents if self.texts == "apart" else [np.concatenate(documents)]
        rows = [row for stream in streams for row in windows(stream, tokenizer.end_of_text, window, stride)]
        units = {
            "tokens": sum(map(len, streams)),
            "bytes": sum(len(example.text.encode()) for example in found),
            "words": sum(len(example.text.split()) for example in found),
        }
        unknown = getattr(tokenizer, "unknown", None)
        if unknown is not None:
            units["unknown"] = sum(int((stream == unknown).sum()) for stream in streams)
        scorer = TokenScorer(program.model, positions(program.model))
        protocol = f"window-{window}-stride-{stride}{'-joined' * (self.texts == 'joined')}"

        def measure(state: State) -> dict[str, float]:
            scores = scorer(local_params(program, state), [row.ids for row in rows])
            nats = -sum(
                float(np.sum(score.log_p[len(score.log_p) - row.counted :], dtype=np.float64))
                for score, row in zip(scores, rows, strict=True)
            )
            numbers: Mapping[str, Any] = measures(nats, **units)
            return {f"{self.split}/{name}/{protocol}": value for name, value in numbers.items()}

        return measure

    def _sizes(self, program: Program) -> tuple[int, int]:
        """Window and stride; ConfigError where they do not fit the model or each other."""
        limit = positions(program.model)
        window = self.window or limit or program.experiment.seq_len
        stride = self.stride or window
        if limit is not None and window > limit:
            raise ConfigError(f"text_perplexity.window = {window}: the model has positions for {limit}.")
        if stride > window:
            raise ConfigError(f"text_perplexity.stride = {stride}: tokens would be left out by a window of {window}.")
        return window, stride


class Window(NamedTuple):
    """A part of a text.

    Attributes:
      ids: of which the first is only read, and the others are predicted.
      counted: how many predictions count: the last ones.
    """

    ids: Int[np.ndarray, " n"]
    counted: int


def windows(stream: Int[np.ndarray, " n"], before: int, window: int, stride: int) -> Iterator[Window]:
    """The windows of a stream that stands behind the id `before`; each of its tokens counts in one of them.

    Example (window = 4, stride = 2, before = 0): 1 2 3 4 5 6 7
      0 | 1 2 3 4, all of which count; 2 | 3 4 5 6, of which 5 and 6 do; 3 | 4 5 6 7, of which 7 does.
    """
    ids = np.concatenate([[before], stream]).astype(np.int32)
    end = min(window, len(stream))
    yield Window(ids[: end + 1], end)
    while end < len(stream):
        counted = min(stride, len(stream) - end)
        end += counted
        yield Window(ids[max(end - window, 0) : end + 1], counted)
