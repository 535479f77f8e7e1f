"""Continuations of probable tokens whose states are unlike those before (contrastive search)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.errors import ConfigError
from lmlab.generation.caches import empty_for_steps, for_steps, picked, read, rows_of_cache
from lmlab.generation.decoding import check_room, laid_out, padded

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

    from lmlab.contracts import Cache, Memory
    from lmlab.nn.functional import ModelDef


class Contrast(NamedTuple):
    """A search on its way; all positions up to `time` are read.

    Attributes:
      tokens: known up to `time`.
      directions: of the state after each token that is read, of length 1; zeros behind.
      logits: of the next token.
      done: rows that have ended.
      time: the position that was read last.
      cache: of B·K rows, the K of a row alike.
      memory: what the sources of B·K rows say; None without such.
    """

    tokens: Int[Array, "B N"]
    directions: Float[Array, "B N D"]
    logits: Float[Array, "B V"]
    done: Bool[Array, " B"]
    time: Int[Array, ""]
    cache: Cache
    memory: Memory


class ContrastiveSearch:
    """Compiled contrastive search with one model (Su et al. 2022, arXiv:2202.06417, section 3.2, equation 4).

    Each next token is that of the K most probable ones which has the greatest (1 - penalty) p - penalty s, where s is
    the greatest cosine between the state after it and the states after all tokens before it, also the prompt's.
    Nothing is drawn: with a penalty of 0, or one candidate, it is greedy.

    What is written for a row does not depend on the rows beside it. Prompts are read token by token.

    Args:
      model: the definition of a causal model or of an encoder-decoder.
      candidates: K; 5 to 10 in the paper.
      penalty: of degeneration, alpha in the paper, in [0, 1]; 0.6 there.
      end_of_text: the id that ends a row (and begins an empty prompt), or None.
      limit: the most tokens that the model can read (learned positions), or None.

    Raises:
      ConfigError: there is no candidate, or the penalty is not in [0, 1].
    """

    def __init__(
        self,
        model: ModelDef[Any],
        *,
        candidates: int,
        penalty: float,
        end_of_text: int | None = None,
        limit: int | None = None,
    ) -> None:
        if candidates < 1:
            raise ConfigError(f"{candidates} candidates: there must be at least 1.")
        if not 0 <= penalty <= 1:
            raise ConfigError(f"a degeneration penalty of {penalty}: it must be in [0, 1].")
        self.model, self.candidates, self.penalty = model, candidates, penalty
        self.end_of_text, self.limit = end_of_text, limit
        self._search = jax.jit(self._searched)

    def complete(
        self,
        params: Mapping[str, Array],
        prompts: Sequence[np.ndarray],
        *,
        length: int,
        sources: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """The continuation of every row, int32, without the end of text.

        Args:
          params: path -> array.
          prompts: one 1-d integer array per row; an empty one stands for the beginning of a document.
          length: the most tokens to add to each row.
          sources: for an encoder-decoder, what each row is the target of: 1-d integer arrays.

        Raises:
          ConfigError: the model cannot read as much.
        """
        tokens, start = laid_out(prompts, length, self.end_of_text)
        check_room("a contrastive search", int(start.max()), length, tokens.shape[1], self.limit)
        told = None if sources is None else padded(sources)
        found = np.asarray(self._search(params, tokens, start, np.int32(length), told))
        return [self._written(found[b, start[b] : start[b] + length]) for b in range(len(start))]

    def _written(self, row: np.ndarray) -> np.ndarray:
        stops = np.flatnonzero(row == self.end_of_text) if self.end_of_text is not None else row[:0]
        return row[: stops[0]] if stops.size else row

    def _searched(
        self,
        params: Mapping[str, Array],
        tokens: Int[Array, "B N"],
        start: Int[Array, " B"],
        length: Int[Array, ""],
        told: tuple[Int[Array, "B S"], Int[Array, "B S"]] | None,
    ) -> Int[Array, "B N"]:
        params = for_steps(self.model, params)
        model, (rows, width), several = self.model.bind(params), tokens.shape, self.candidates
        memory = None
        if told is not None:
            each = (jnp.repeat(part, several, axis=0) for part in told)
            memory = model.encode_source(next(each), segment_ids=next(each))

        def empty(memory: Memory, rows: int) -> Cache:
            return empty_for_steps(self.model, params, memory, rows, width)

        axes = rows_of_cache(empty, memory)
        hidden, cache = read(model, memory, jnp.repeat(tokens[:, :1], several, axis=0), empty(memory, rows * several))
        first = hidden[::several, 0]
        directions = jnp.zeros((rows, width, first.shape[-1])).at[:, 0].set(_direction(first))
        state = Contrast(tokens, directions, model.project(first), jnp.zeros(rows, bool), jnp.int32(0), cache, memory)
        step = partial(self._step, model, start, start + length, axes)
        return jax.lax.while_loop(lambda s: (s.time < width - 1) & ~s.done.all(), step, state).tokens

    def _step(self, model: Any, start: Int[Array, " B"], end: Int[Array, " B"], axes: Any, state: Contrast) -> Contrast:
        """One token more in every row."""
        rows, several, time = len(state.tokens), min(self.candidates, state.logits.shape[-1]), state.time + 1
        shares, candidates = jax.lax.top_k(jax.nn.softmax(state.logits.astype(jnp.float32)), several)
        # With fewer ids than candidates, the last one stands for those that are missing.
        places = jnp.minimum(jnp.arange(self.candidates), several - 1)
        shares, candidates = shares[:, places], candidates[:, places]
        given = jax.lax.dynamic_index_in_dim(state.tokens, time, axis=1)
        reading = (time < start)[:, None]
        candidates = jnp.where(reading, given, candidates)

        hidden, cache = read(model, state.memory, candidates.reshape(-1, 1), state.cache)
        hidden = hidden[:, 0].reshape(rows, self.candidates, -1)
        directions = _direction(hidden)
        cosines = jnp.einsum("bkd,bnd->bkn", directions, state.directions)
        before = jnp.arange(state.tokens.shape[1]) < time
        alike = jnp.where(before, cosines, -1.0).max(-1)
        chosen = jnp.argmax((1 - self.penalty) * shares - self.penalty * alike, axis=1)

        def of_chosen(values: Array) -> Array:
            return jnp.take_along_axis(values, chosen.reshape(-1, *[1] * (values.ndim - 1)), axis=1)[:, 0]

        token = of_chosen(candidates)
        if self.end_of_text is not None:
            token = jnp.where(state.done, self.end_of_text, token)
        done = state.done | (time + 1 >= end)
        if self.end_of_text is not None:
            done |= (token == self.end_of_text) & ~reading[:, 0]
        flat = jnp.repeat(jnp.arange(rows) * self.candidates + chosen, self.candidates)
        return state._replace(
            tokens=jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], time, axis=1),
            directions=jax.lax.dynamic_update_slice_in_dim(
                state.directions, of_chosen(directions)[:, None], time, axis=1
            ),
            logits=model.project(of_chosen(hidden)),
            done=done,
            time=time,
            cache=picked(cache, axes, flat),
        )


def _direction(states: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    """The states with length 1, float32; those of length 0 stay."""
    states = states.astype(jnp.float32)
    length = jnp.linalg.norm(states, axis=-1, keepdims=True)
    return states / jnp.where(length > 0, length, 1.0)
