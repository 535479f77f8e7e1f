"""Continuing token sequences with a causal model and its cache: one compiled loop, a chunk of tokens per call.

All rows stand left-aligned in one buffer and are read at the same pace: position t of every row is read at time t.
Where a row's prompt is longer than the shortest one, its own next token is put in place of the drawn one. So the
cache never reads padding, whatever the model keeps in it, and a row's continuation depends on its prompt, its
row number and the seed only: not on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.errors import DataError
from lmlab.training.randomness import GENERATION, row_keys, stream_key

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int, Key

    from lmlab.contracts import Cache, CausalLM, Sampler
    from lmlab.nn.functional import ModelDef

CHUNK = 16
"""Tokens per compiled call: few enough that text appears smoothly, enough that a call's own cost vanishes."""


class Decoding(NamedTuple):
    """Sequences on their way. `cache` has read positions before `time`; `tokens` are known up to `time`."""

    tokens: Int[Array, "B N"]
    start: Int[Array, " B"]
    """Length of each row's prompt."""
    end: Int[Array, " B"]
    """Position before which each row stops at the latest."""
    done: Bool[Array, " B"]
    time: Int[Array, ""]
    keys: Key[Array, " B"]
    cache: Cache


class Decoder:
    """Compiled decoding of one model with one sampler.

    Args:
      model: a causal model's definition.
      sampler: chooses each next token.
      end_of_text: the id that ends a row (and begins an empty prompt), or None.
      limit: the most tokens that the model can have in view (learned positions), or None. Beyond it the model
        forgets the older half of its view and goes on: a text has no greatest length.
    """

    def __init__(self, model: ModelDef, sampler: Sampler, *, end_of_text: int | None, limit: int | None = None) -> None:
        self.model = model
        self.sampler = sampler
        self.end_of_text = end_of_text
        self.limit = limit
        self._begin = jax.jit(begin)
        self._read = jax.jit(self._read_view, static_argnames=("size", "room"))
        self._advance = jax.jit(self._advance_until, donate_argnums=1)

    def stream(
        self, params: Mapping[str, Array], prompts: Sequence[np.ndarray], *, length: int, seed: int = 0
    ) -> Iterator[list[np.ndarray]]:
        """Yields the next tokens of every row, a chunk at a time, until each has `length` more or has ended.

        Args:
          params: path -> array.
          prompts: one 1-d integer array per row; an empty one stands for the beginning of a document.
          length: the most tokens to add to each row.
          seed: row b draws with keys folded from (seed, b, position).

        Yields:
          One int32 array per row (empty while a longer prompt is read, and after the row's end), without
          `end_of_text`.
        """
        rows = [self._opening(prompt) for prompt in prompts]
        starts = np.array([len(row) for row in rows], np.int32)
        ends = starts + np.int32(length)
        tokens = np.zeros((len(rows), int(ends.max())), np.int32)
        for row, opening in zip(tokens, rows, strict=True):
            row[: len(opening)] = opening
        time, capacity = int(starts.min()) - 1, tokens.shape[1]
        state = self._begin(*jax.device_put((tokens, starts, ends, np.int32(time), np.uint32(seed))))
        limit, view = self.limit or capacity, -1
        while time < capacity - 1:
            start = first_in_view(time, limit)
            if start != view:
                view = start
                place = jax.device_put(np.int32(start))
                cache = self._read(params, state.tokens, place, size=time - start, room=min(capacity, limit))
                state = state._replace(cache=cache)
            until = min(time + CHUNK, start + limit, capacity - 1)
            state = self._advance(params, state, jax.device_put(np.int32(until)))
            tokens, done, reached = jax.device_get((state.tokens, state.done, state.time))
            yield [
                self._fresh(tokens[b], range(max(time + 1, starts[b]), min(reached + 1, ends[b])))
                for b in range(len(rows))
            ]
            time = int(reached)
            if done.all():
                return

    def complete(
        self, params: Mapping[str, Array], prompts: Sequence[np.ndarray], *, length: int, seed: int = 0
    ) -> list[np.ndarray]:
        """The whole continuation of every row, int32: `stream`'s chunks joined."""
        joined = [np.zeros(0, np.int32) for _ in prompts]
        for chunk in self.stream(params, prompts, length=length, seed=seed):
            joined = [np.concatenate(pair) for pair in zip(joined, chunk, strict=True)]
        return joined

    def _opening(self, prompt: np.ndarray) -> np.ndarray:
        """The prompt, or what stands before every document where it is empty."""
        if len(prompt):
            return np.asarray(prompt, np.int32)
        if self.end_of_text is None:
            raise DataError("an empty prompt, and no tokenizer that says how a document begins: give token ids.")
        return np.array([self.end_of_text], np.int32)

    def _fresh(self, row: np.ndarray, span: range) -> np.ndarray:
        """The row's tokens in `span`, up to its end of text."""
        tokens = row[span.start : span.stop] if span else row[:0]
        if self.end_of_text is None:
            return tokens
        stops = np.flatnonzero(tokens == self.end_of_text)
        return tokens[: stops[0]] if stops.size else tokens

    def _read_view(
        self, params: Mapping[str, Array], tokens: Int[Array, "B N"], start: Int[Array, ""], *, size: int, room: int
    ) -> Cache:
        """A cache with room for `room` tokens that has read `size` of them, from `start` on."""
        model: CausalLM = self.model.bind(params)
        cache = model.init_cache(tokens.shape[0], room)
        if size:
            _, cache = model.hidden(jax.lax.dynamic_slice_in_dim(tokens, start, size, axis=1), cache=cache)
        return cache

    def _advance_until(self, params: Mapping[str, Array], state: Decoding, until: Int[Array, ""]) -> Decoding:
        """Reads tokens one by one and puts down the next ones, up to position `until`, while any row goes on."""
        model: CausalLM = self.model.bind(params)

        def going(state: Decoding) -> Bool[Array, ""]:
            return (state.time < until) & ~jnp.all(state.done)

        return jax.lax.while_loop(going, partial(self._next, model), state)

    def _next(self, model: CausalLM, state: Decoding) -> Decoding:
        """One token more in every row."""
        latest = jax.lax.dynamic_slice_in_dim(state.tokens, state.time, 1, axis=1)
        hidden, cache = model.hidden(latest, cache=state.cache)
        time = state.time + 1
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, time)
        chosen = self.sampler(model.project(hidden[:, 0]), keys)
        fill = 0 if self.end_of_text is None else self.end_of_text
        given = jax.lax.dynamic_index_in_dim(state.tokens, time, axis=1, keepdims=False)
        following = jnp.where(time < state.start, given, jnp.where(state.done, fill, chosen))
        ended = time + 1 >= state.end
        if self.end_of_text is not None:
            ended |= (time >= state.start) & (following == self.end_of_text)
        tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, following[:, None], time, axis=1)
        return state._replace(tokens=tokens, done=state.done | ended, time=time, cache=cache)


def begin(
    tokens: Int[Array, "B N"], start: Int[Array, " B"], end: Int[Array, " B"], time: Int[Array, ""], seed: Array
) -> Decoding:
    """Rows about to be continued; nothing is read yet."""
    keys = row_keys(stream_key(seed, GENERATION), jnp.arange(tokens.shape[0]))
    return Decoding(tokens, start, end, done=start >= end, time=time, keys=keys, cache=None)


def first_in_view(time: int, limit: int) -> int:
    """The first position that a model with a view of `limit` tokens still sees when it reads position `time`.

    A function of `time` alone, so that a row slides at the same places in whatever batch it is.

    Example (limit = 8): positions 0-7 see from 0, 8-11 from 4, 12-15 from 8.
    """
    stride = max(limit - limit // 2, 1)
    return 0 if time < limit else ((time - limit) // stride + 1) * stride
