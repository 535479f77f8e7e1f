"""A run's model as EleutherAI's lm-evaluation-harness asks it (`lm_eval.api.model.LM`). Importing it needs lm-eval.

What is read in front of a text, how a context and its continuation are cut into tokens, and what is left out where they
are too long, is as the harness's own `hf` back end has it, so that the numbers are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from lmlab.contracts import CausalLM
from lmlab.data.tokenizers.hugging_face import HuggingFace
from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.learned_words import check_learned_words
from lmlab.evaluation.token_scores import TokenScorer
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy, Sample
from lmlab.generation.writing import positions

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.contracts import Sampler
    from lmlab.training.program import Program

ROWS = 16
"""Texts that are written side by side."""
TOGETHER = 32
"""Contexts whose lengths lie between the same multiples of this share a compiled program."""

Tokens = list[int]
Request = tuple[Any, Tokens, Tokens]
"""What it was asked by (None: nothing to remember), the context's ids and the continuation's."""


class HarnessModel(TemplateLM):
    """Log-likelihoods and texts of one run's causal model.

    A text without a context stands behind the tokenizer's beginning of text where it has one, else behind its end of
    text. Around a text is what the run's tokenizer.json puts there, and special tokens in it are such; other tokenizers
    than those of that library have neither.

    Args:
      program: of the run.
      params: path -> array.

    Raises:
      ConfigError: the model is no CausalLM or never learned to be one, or its data are ids without a tokenizer.
    """

    def __init__(self, program: Program, params: Mapping[str, Array]) -> None:
        super().__init__()
        if not isinstance(program.abstract_model, CausalLM) or program.tokenizer is None:
            raise ConfigError(
                "the harness asks a CausalLM that reads text; the model "
                f"'{program.experiment.model.name}' {'is none' if program.tokenizer else 'reads ids only'}."
            )
        check_learned_words(program, "the harness")
        self._tokenizer, self._params, self._model = program.tokenizer, params, program.model
        self._limit = positions(program.model)
        self.max_length = self._limit or program.experiment.seq_len
        """Tokens that are read at once: the model's positions or, without such, those of a training row."""
        self._scorer = TokenScorer(program.model, self._limit)
        self._decoders: dict[Sampler, Decoder] = {}

    @property
    def eot_token_id(self) -> int:
        """The id of the end of text."""
        return self._tokenizer.end_of_text

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without a context."""
        return self._tokenizer.special_ids.get("beginning", self.eot_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> Tokens:
        """The ids of a text, in its frame unless it brings its own beginning or `add_special_tokens` says otherwise."""
        if not isinstance(self._tokenizer, HuggingFace):
            return [int(i) for i in self._tokenizer.encode(string)]
        framed = add_special_tokens
        if framed is None:
            framed = not string.startswith(self._tokenizer.vocabulary.pieces[self.prefix_token_id])
        return [int(i) for i in self._tokenizer.encode_marked(string, framed)]

    def _loglikelihood_tokens(self, requests: Sequence[Request], **kwargs: Any) -> list[tuple[float, bool]]:
        """Log p of each continuation, and whether every token of it is the most probable; contexts lose their begin."""
        rows = []
        for asked, context, continuation in requests:
            if not 0 < len(continuation) <= self.max_length:
                raise DataError(
                    f"the harness asks for a continuation of {len(continuation)} tokens, {asked and asked[1]!r:.60}; "
                    f"the model scores 1 to {self.max_length}."
                )
            rows.append(np.array((context + continuation)[-(self.max_length + 1) :], np.int32))
        found = []
        for (asked, _, continuation), scored in zip(requests, self._scorer(self._params, rows), strict=True):
            count = len(continuation)
            answer = float(np.sum(scored.log_p[-count:], dtype=np.float64)), bool(scored.greedy[-count:].all())
            found.append(answer)
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log p of whole texts, each of their tokens once, in windows that do not overlap but in the last one."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            (text,) = request.args
            each = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length,
                context_len=1,
            )  # fmt: skip
            made = [(None, *utils.make_disjoint_window(window)) for window in each]
            windows += made
            counts.append(len(made))
        scores = iter(self._loglikelihood_tokens(windows))
        found = [sum(next(scores)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind each context, up to the first of the request's stop sequences."""
        found = [""] * len(requests)
        for places in _alike(requests):
            asked = dict(requests[places[0]].args[1])
            options = normalize_gen_kwargs(asked, self.max_gen_toks)
            until, length = handle_stop_sequences(options.pop("until", None), None), options.pop("max_gen_toks")
            sampler = _sampler(options)
            room = self.max_length - length
            if room < 1:
                raise ConfigError(
                    f"the task asks for texts of {length} tokens, and the model reads {self.max_length}: nothing is "
                    "left for the context. Set max_gen_toks in the task's generation_kwargs."
                )
            contexts = {i: np.array(self.tok_encode(requests[i].args[0])[-room:], np.int32) for i in places}
            order = sorted(places, key=lambda i: len(contexts[i]))
            for first in range(0, len(order), ROWS):
                chosen = order[first : first + ROWS]
                texts = self._written([contexts[i] for i in chosen], length, until, sampler)
                for i, text in zip(chosen, texts, strict=True):
                    found[i] = postprocess_generated_text(text, until, None)
                    self.cache_hook.add_partial("generate_until", requests[i].args, found[i])
        return found

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are written where a task does not say how many."""
        return 256

    def _written(self, contexts: list[np.ndarray], length: int, until: Sequence[str], sampler: Sampler) -> list[str]:
        """What is written behind each context; no further than until all have come to a stop."""
        count = len(contexts)
        rows = contexts + contexts[-1:] * (ROWS - count)
        if sampler not in self._decoders:
            self._decoders[sampler] = Decoder(self._model, sampler, end_of_text=self.eot_token_id, limit=self._limit)
        ids: list[list[int]] = [[] for _ in contexts]
        texts = [""] * count
        for chunk in self._decoders[sampler].stream(self._params, rows, length=length, together=TOGETHER):
            for b in range(count):
                ids[b] += chunk[b].tolist()
                texts[b] = self._tokenizer.decode(ids[b])
            if all(any(stop in text for stop in until if stop) for text in texts):
                break
        return texts


def _alike(requests: Sequence[Any]) -> list[list[int]]:
    """The places of requests that ask for texts in one way."""
    groups: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(repr(sorted(request.args[1].items())), []).append(i)
    return list(groups.values())


def _sampler(options: Mapping[str, Any]) -> Sampler:
    """How tokens are chosen by a task's generation_kwargs; ConfigError for what lmlab does not do."""
    known = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}
    unknown = sorted(options.keys() - known - {"do_sample"})
    if unknown:
        raise ConfigError(
            f"the task's generation_kwargs ask for {', '.join(unknown)}; lmlab knows do_sample, "
            f"{', '.join(sorted(known))}, until and max_gen_toks."
        )
    if not options.get("do_sample"):
        return Greedy()
    given = {name: options[name] for name in known & options.keys() if options[name] is not None}
    return Sample(**given)
