"""The states of tokens, from whichever capability a model has for it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, EncoderDecoder, LatentLM, TokenEncoder


def token_states(
    model: Any,
    tokens: Int[Array, "B T"],
    *,
    segment_ids: Int[Array, "B T"] | None = None,
    type_ids: Int[Array, "B T"] | None = None,
    keys: Key[Array, " B"] | None = None,
) -> Float[Array, "B T D"]:
    """States in two-sided context where the model is a `TokenEncoder`, else after reading each token (`CausalLM`).

    A causal model is not told `type_ids`: the separator before the second text tells it.
    """
    if isinstance(model, TokenEncoder):
        return model.encode(tokens, segment_ids=segment_ids, type_ids=type_ids, keys=keys)
    return model.hidden(tokens, segment_ids=segment_ids, keys=keys)[0]


def states_width(model: Any) -> int:
    """D, the width of a model's states, found without computing anything."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    if isinstance(model, TokenEncoder | CausalLM):
        return jax.eval_shape(lambda: token_states(model, tokens)).shape[-1]
    if isinstance(model, EncoderDecoder):
        return jax.eval_shape(lambda: model.decode(tokens, model.encode_source(tokens))[0]).shape[-1]
    if isinstance(model, LatentLM):
        return jax.eval_shape(lambda: model.hidden_given(tokens, model.posterior(tokens).mean)[0]).shape[-1]
    raise TypeError(f"{type(model).__name__} has no capability that gives states")
