"""How probable whole sentences are under a model: by tokens in order or, for an encoder, by each token in its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import BidirectionalLM, CausalLM
from lmlab.data.features.labelled import marked_parts
from lmlab.data.features.rows import Setting
from lmlab.errors import ConfigError, NonFiniteError
from lmlab.evaluation.learned_words import check_learned_words
from lmlab.evaluation.token_scores import TokenScorer, batches_by_length
from lmlab.generation.writing import positions

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.nn.functional import ModelDef
    from lmlab.training.program import Program


class SentenceScorer:
    """Log p of sentences, each by itself; the end of the text is not predicted, for a sentence may go on.

    Of a causal model it is the sum over tokens after all before them, behind an end of text. Of a masked language model
    it is the pseudo-log-likelihood of Salazar et al. 2020 (arXiv:1910.14659): each token in its turn is masked, and
    predicted from all others.

    Args:
      program: of the run.
      asks: who asks, for the message.

    Raises:
      ConfigError: the model gives no sentence a probability, never learned to, or reads no text; an encoder's tokenizer
        has no mask.
    """

    def __init__(self, program: Program, asks: str) -> None:
        model, name, tokenizer = program.abstract_model, program.experiment.model.name, program.tokenizer
        if not isinstance(model, CausalLM | BidirectionalLM) or tokenizer is None:
            raise ConfigError(
                f"{asks} needs a CausalLM or a BidirectionalLM that reads text; the model '{name}' "
                f"{'is neither' if tokenizer else 'reads ids'}."
            )
        check_learned_words(program, asks)
        self._tokenizer, self._special = tokenizer, program.data.special_ids
        self._limit, self._asks = positions(program.model), asks
        self._masked = not isinstance(model, CausalLM)
        if self._masked and "mask" not in self._special:
            raise ConfigError(f"{asks} masks tokens, and the tokenizer has no id for 'mask'.")
        self._setting = Setting(program.experiment.seq_len, tokenizer)
        self._scorer = TokenScorer(program.model, self._limit)
        self._read = jax.jit(partial(_of_masked, program.model))

    def ids(self, text: str) -> Int[np.ndarray, " n"]:
        """The ids of a sentence, nothing around them."""
        return np.asarray(self._tokenizer.encode(text), np.int32)

    def __call__(self, params: Mapping[str, Array], texts: Sequence[str]) -> Float[np.ndarray, " N"]:
        """Log p of each sentence, in nats, float64.

        Raises:
          ConfigError: a sentence is longer than the model can read.
          NonFiniteError: a log p is no number, so that nothing can be compared with it.
        """
        ids = [self.ids(text) for text in texts]
        for text, row in zip(texts, ids, strict=True):
            # An encoder reads the marks before and behind; of a causal model's row the last token is not read.
            if self._limit is not None and len(row) + 2 * self._masked > self._limit:
                raise ConfigError(
                    f"{self._asks} reads sentences of {len(row)} tokens, such as '{text}', and the model has positions "
                    f"for {self._limit}."
                )
        found = self._pseudo(params, ids) if self._masked else self._causal(params, ids)
        if np.isnan(found).any():
            raise NonFiniteError(
                f"{self._asks}: the model gives '{texts[int(np.isnan(found).argmax())]}' a log p of NaN."
            )
        return found

    def _causal(self, params: Mapping[str, Array], ids: Sequence[np.ndarray]) -> np.ndarray:
        before = [self._tokenizer.end_of_text]
        rows = [np.concatenate([before, row]).astype(np.int32) for row in ids]
        return np.array([np.sum(found.log_p, dtype=np.float64) for found in self._scorer(params, rows)])

    def _pseudo(self, params: Mapping[str, Array], ids: Sequence[np.ndarray]) -> np.ndarray:
        """A row for each token of each sentence, with its place and id."""
        rows, places, sentences = [], [], []
        for number, row in enumerate(ids):
            framed = marked_parts((row,), self._setting)[0]
            for place in range(1, len(row) + 1):
                rows.append(np.append(framed, 0).astype(np.int32))  # one more than is read, as batches have it
                places.append(place)
                sentences.append(number)
        found = np.zeros(len(ids))
        for chosen, batch in batches_by_length(rows, self._limit):
            at, there = np.zeros(len(batch), np.int32), np.zeros((len(batch), batch.shape[1] - 1), np.int32)
            for b, i in enumerate(chosen):
                at[b], there[b, : len(rows[i]) - 1] = places[i], 1
            log_p = np.asarray(
                self._read(params, batch[:, :-1], at, there, np.int32(self._special["mask"])), np.float64
            )
            for b, i in enumerate(chosen):
                found[sentences[i]] += log_p[b]
        return found


def _of_masked(
    model: ModelDef[Any],
    params: Mapping[str, Array],
    ids: Int[Array, "B T"],
    at: Int[Array, " B"],
    there: Int[Array, "B T"],
    mask: Int[Array, ""],
) -> Float[Array, " B"]:
    """Log p of the token at one place of each row, which is masked."""
    bound, rows = model.bind(params), jnp.arange(len(ids))
    states = bound.encode(ids.at[rows, at].set(mask), segment_ids=there)
    log_p = jax.nn.log_softmax(bound.project(states[rows, at]).astype(jnp.float32))
    return log_p[rows, ids[rows, at]]
