"""How probable single texts are under a run's model: for rescoring the n best of another system, and to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import CausalLM, EncoderDecoder
from lmlab.errors import ConfigError
from lmlab.evaluation.text_batches import text_batches
from lmlab.generation.saved import ids_of_text

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.training.program import Program


class TextScore(NamedTuple):
    """Of one text.

    Attributes:
      nats: -log p of its tokens, each after all before it, and of its end.
      tokens: how many were predicted.
    """

    nats: float
    tokens: int


def score_texts(
    program: Program,
    params: Mapping[str, Array],
    texts: Sequence[str],
    *,
    source: str | None = None,
    whole: bool = True,
) -> list[TextScore]:
    """-log p of texts, each as a document of its own: behind the end of the text before it.

    A text's score does not depend on the texts beside it.

    Args:
      program: of the run.
      params: path -> array.
      texts: to be scored; to an encoder-decoder they are targets.
      source: an encoder-decoder's: what all of them are the target of.
      whole: whether the end of the text is predicted, too: of a text that might go on, it is not.

    Raises:
      ConfigError: the model predicts no text from left to right, a source is missing or not asked for, or a text is
        longer than the model can read.
      DataError: there is no token in a text.
    """
    _check(program, source)
    end = [0 if program.tokenizer is None else program.tokenizer.end_of_text] * whole
    rows = [np.append(ids_of_text(program, text, before=True), end).astype(np.int32) for text in texts]
    measure = _measure(program, None if source is None else ids_of_text(program, source, behind=True))
    found: list[float] = []
    for ids, there, count in text_batches(rows):
        found += np.asarray(measure(params, ids, there), np.float64)[:count].tolist()
    return [TextScore(nats, len(row) - 1) for nats, row in zip(found, rows, strict=True)]


def _check(program: Program, source: str | None) -> None:
    """ConfigError unless the model writes from left to right, and has a source just where it needs one."""
    model, name = program.abstract_model, program.experiment.model.name
    told = isinstance(model, EncoderDecoder) and not isinstance(model, CausalLM)
    if not isinstance(model, CausalLM | EncoderDecoder):
        raise ConfigError(f"texts are scored by a CausalLM or an EncoderDecoder; the model '{name}' is neither.")
    if told != (source is not None):
        raise ConfigError(
            f"the model '{name}' writes targets: give the --source of the texts."
            if told
            else f"the model '{name}' reads no source: leave --source out."
        )


def _measure(program: Program, source: Int[np.ndarray, " S"] | None) -> Callable[..., Float[Array, " B"]]:
    """A compiled `(params, ids, there) -> nats` of rows, of which the first token is given."""

    @jax.jit
    def measure(params: Any, ids: Int[Array, "B T"], there: Int[Array, "B T"]) -> Float[Array, " B"]:
        bound = program.model.bind(params)
        if source is None:
            states = bound.hidden(ids[:, :-1])[0]
        else:
            sources = jnp.broadcast_to(source, (len(ids), len(source)))
            states = bound.decode(ids[:, :-1], bound.encode_source(sources))[0]
        log_p = jax.nn.log_softmax(bound.project(states).astype(jnp.float32))
        nats = -jnp.take_along_axis(log_p, ids[:, 1:, None], axis=-1)[..., 0]
        return jnp.where(there[:, 1:] > 0, nats, 0).sum(1)

    return measure
