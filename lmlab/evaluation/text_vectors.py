"""Texts as vectors of a run's model, and which of them are near to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np

from lmlab.contracts import CausalLM, TokenEncoder
from lmlab.data.features.labelled import marked_parts
from lmlab.data.features.rows import Setting
from lmlab.errors import ConfigError
from lmlab.evaluation.text_batches import text_batches
from lmlab.generation.saved import ids_of_text
from lmlab.generation.writing import positions
from lmlab.nn.heads import mean_state, pooled
from lmlab.nn.states import token_states

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program


Pooling = Literal["own", "mean"]
"""What is made of a text's states: the model's own vector, or their mean."""


def text_vectors(
    program: Program, params: Mapping[str, Array], texts: Sequence[str], pooling: Pooling = "own"
) -> Float[np.ndarray, "N D"]:
    """One vector for each text, float32: the model's own (its pooler), an encoder's mean, a causal model's last state.

    These are what `classification` and `contrastive` are trained on, read as these read a text: between the ids of
    `classify` and `separator`, or ends of text. A text's vector does not depend on the texts beside it.

    Args:
      program: of the run.
      params: path -> array.
      texts: to be read; `<mask>` and the like are special ids.
      pooling: `own`, or `mean`: of all states, those of the ids around the text included, as Sentence-BERT has it
        (Reimers & Gurevych 2019, arXiv:1908.10084, section 3).

    Raises:
      ConfigError: the model is neither a TokenEncoder nor a CausalLM, has no id to stand around a text, or cannot read
        as long a text.
      DataError: there is no token in a text.
    """
    if not isinstance(program.abstract_model, TokenEncoder | CausalLM):
        raise ConfigError(
            "vectors of texts are made by a TokenEncoder or a CausalLM; the model "
            f"'{program.experiment.model.name}' is neither."
        )
    rows = [_framed(program, text) for text in texts]

    @jax.jit
    def read(params: Params, ids: Int[Array, "B T"], there: Int[Array, "B T"]) -> Float[Array, "B D"]:
        model = program.model.bind(params)
        states = token_states(model, ids, segment_ids=there)
        return mean_state(states, there) if pooling == "mean" else pooled(model, states, there)

    found = [np.asarray(read(params, ids, there), np.float32)[:count] for ids, there, count in text_batches(rows)]
    return np.concatenate(found)


def _framed(program: Program, text: str) -> Int[np.ndarray, " T"]:
    """The ids of a text as a classifier reads it."""
    data = program.data
    setting = Setting(program.experiment.seq_len, program.tokenizer, ids=data.special_ids)
    ids, _ = marked_parts((ids_of_text(program, text),), setting)
    limit = positions(program.model)
    if limit is not None and len(ids) > limit:
        raise ConfigError(
            f"the text has {len(ids)} tokens with what stands around it, and the model positions for {limit}. Give a "
            "shorter one."
        )
    return ids
