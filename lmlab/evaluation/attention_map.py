"""What the attention of a run's model looks at in a text: numbers with the tokens that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import Memory
from lmlab.errors import ConfigError
from lmlab.generation.saved import ids_of_text
from lmlab.nn.transformer import Looks

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int

    from lmlab.contracts import Tokenizer
    from lmlab.training.program import Program


@runtime_checkable
class AttendsToItself(Protocol):
    """A model of one text that says what its tokens look at."""

    def attention_weights(self, tokens: Int[Array, "B T"]) -> Float[Array, "L B H T T"]:
        """The share that each token has in what each token reads, float32."""
        ...


@runtime_checkable
class AttendsToSource(Protocol):
    """An encoder-decoder that says what the tokens of its target look at; one with `source_attention_weights`, (L, B,
    H, S, S), also what those of the source do."""

    def encode_source(self, tokens: Int[Array, "B S"]) -> Memory:
        """What the decoder needs to know of the source."""
        ...

    def target_attention_weights(self, tokens: Int[Array, "B T"], memory: Memory) -> Looks:
        """The shares of the target's and of the source's tokens."""
        ...


@dataclass(frozen=True)
class AttentionMap:
    """The shares that tokens have in what tokens read.

    Attributes:
      weights: `[l, h, t, s]` is the share of `read[s]` in what `reading[t]` reads, summing to 1 over s.
      reading, read: the tokens' texts.
    """

    weights: Float[np.ndarray, "L H T S"]
    reading: tuple[str, ...]
    read: tuple[str, ...]


def attention_map(
    program: Program, params: Mapping[str, Array], text: str, *, source: str | None = None, own: bool = False
) -> AttentionMap:
    """What a program's model looks at.

    Args:
      program: of the run.
      params: path -> array.
      text: what is read; to an encoder-decoder, the target, or without a `source`, the source itself.
      source: an encoder-decoder's.
      own: of a target, what it looks at in itself; else what it looks at in the source.

    Raises:
      ConfigError: the model has no such attention, or the text is longer than it can read.
      DataError: there is no token in a text.
    """
    model, name = program.abstract_model, program.experiment.model.name
    if isinstance(model, AttendsToItself):
        if source is not None:
            raise ConfigError(f"the model '{name}' reads one text: leave --source out.")
        ids = ids_of_text(program, text)
        return _map(program, ids, ids, _run(program, params, lambda model: model.attention_weights(ids[None])))
    if not isinstance(model, AttendsToSource):
        raise ConfigError(f"the model '{name}' has no attention weights to show.")
    if source is None:
        if not hasattr(model, "source_attention_weights"):
            raise ConfigError(f"the model '{name}' looks from a target at its source: give it by --source.")
        ids = ids_of_text(program, text, behind=True)
        return _map(program, ids, ids, _run(program, params, lambda model: model.source_attention_weights(ids[None])))
    target, told = ids_of_text(program, text, before=True), ids_of_text(program, source, behind=True)
    looks: Looks = _run(
        program, params, lambda model: model.target_attention_weights(target[None], model.encode_source(told[None]))
    )
    return _map(program, target, target if own else told, looks.own if own else looks.source)


def _run(program: Program, params: Mapping[str, Array], function: Callable[[Any], Any]) -> Any:
    return jax.jit(lambda params: function(program.model.bind(params)))(params)


def _map(program: Program, reading: np.ndarray, read: np.ndarray, weights: Array | None) -> AttentionMap:
    """The weights of one row, with the tokens' texts."""
    if weights is None or not len(weights):
        raise ConfigError(f"the model '{program.experiment.model.name}' has no such attention.")
    labels = (labels_of(program.tokenizer, ids) for ids in (reading, read))
    return AttentionMap(np.asarray(weights[:, 0].astype(jnp.float32)), *labels)


def labels_of(tokenizer: Tokenizer | None, ids: Int[np.ndarray, " T"]) -> tuple[str, ...]:
    """The texts of ids, spaces and line breaks to be seen; `<role>` for special ids, numbers without a tokenizer."""
    if tokenizer is None:
        return tuple(map(str, ids))
    pieces, roles = tokenizer.token_bytes(), {i: f"<{role}>" for role, i in tokenizer.special_ids.items()}
    return tuple(
        roles.get(i) or pieces[i].decode("utf-8", "backslashreplace").replace(" ", "␣").replace("\n", "↵")
        for i in map(int, ids)
    )
