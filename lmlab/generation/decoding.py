"""Continuing token sequences with a model and its cache: one compiled loop, a chunk of tokens per call.

An encoder-decoder's sequences are targets, each of a source that is read once.

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

from lmlab.contracts import TextSampler
from lmlab.errors import ConfigError, DataError
from lmlab.generation.caches import cache_for_steps, empty_cache, for_steps, read
from lmlab.nn.layout import on_cpu
from lmlab.training.randomness import GENERATION, row_keys, stream_key

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int, Key

    from lmlab.contracts import Cache, CausalLM, EncoderDecoder, Memory, Sampler
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
    memory: Memory
    """What the sources say, row by row; None without such."""


class Decoder:
    """Compiled decoding of one model with one sampler.

    Args:
      model: the definition of a causal model or of an encoder-decoder.
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
        self._encode = jax.jit(self._encode_sources)
        self._read = jax.jit(self._read_view, static_argnames=("size", "room"))
        self._advance = jax.jit(self._advance_until, donate_argnums=1)
        self._for_steps = jax.jit(partial(for_steps, model))

    def stream(
        self,
        params: Mapping[str, Array],
        prompts: Sequence[np.ndarray],
        *,
        length: int,
        seed: int = 0,
        sources: Sequence[np.ndarray] | None = None,
        together: int = 1,
    ) -> Iterator[list[np.ndarray]]:
        """Yields the next tokens of every row, a chunk at a time, until each has `length` more or has ended.

        Args:
          params: path -> array.
          prompts: one 1-d integer array per row; an empty one stands for the beginning of a document.
          length: the most tokens to add to each row.
          seed: row b draws with keys folded from (seed, b, position).
          sources: for an encoder-decoder, what each row is the target of: 1-d integer arrays.
          together: lengths that lie between the same multiples of this share a compiled program; the numbers do not
            depend on it.

        Yields:
          One int32 array per row (empty while a longer prompt is read, and after the row's end), without
          `end_of_text`.
        """
        tokens, starts = laid_out(prompts, length, self.end_of_text)
        tokens = _widened(tokens, together)
        ends = starts + np.int32(length)
        time, capacity = (int(starts.min()) - 1) // together * together, tokens.shape[1]
        state = self._begin(*jax.device_put((tokens, starts, ends, np.int32(time), np.uint32(seed))))
        if sources is not None:
            state = state._replace(memory=self._encode(params, *jax.device_put(padded(sources, together))))
        limit, view = self.limit or capacity, -1
        own = self._for_steps(params) if on_cpu() else params
        while time < capacity - 1:
            start = first_in_view(time, limit)
            if start != view:
                view = start
                place = jax.device_put(np.int32(start))
                room = min(capacity, limit)
                cache = self._read(params, state.tokens, place, state.memory, size=time - start, room=room)
                state = state._replace(cache=cache)
            until = min(time + CHUNK, start + limit, capacity - 1)
            state = self._advance(own, state, jax.device_put(np.int32(until)))
            tokens, done, reached = jax.device_get((state.tokens, state.done, state.time))
            yield [
                self._fresh(tokens[b], range(max(time + 1, starts[b]), min(reached + 1, ends[b])))
                for b in range(len(starts))
            ]
            time = int(reached)
            if done.all():
                return

    def complete(
        self,
        params: Mapping[str, Array],
        prompts: Sequence[np.ndarray],
        *,
        length: int,
        seed: int = 0,
        sources: Sequence[np.ndarray] | None = None,
        together: int = 1,
    ) -> list[np.ndarray]:
        """The whole continuation of every row, int32: `stream`'s chunks joined."""
        joined = [np.zeros(0, np.int32) for _ in prompts]
        for chunk in self.stream(params, prompts, length=length, seed=seed, sources=sources, together=together):
            joined = [np.concatenate(pair) for pair in zip(joined, chunk, strict=True)]
        return joined

    def _fresh(self, row: np.ndarray, span: range) -> np.ndarray:
        """The row's tokens in `span`, up to its end of text."""
        tokens = row[span.start : span.stop] if span else row[:0]
        if self.end_of_text is None:
            return tokens
        stops = np.flatnonzero(tokens == self.end_of_text)
        return tokens[: stops[0]] if stops.size else tokens

    def _encode_sources(
        self, params: Mapping[str, Array], tokens: Int[Array, "B S"], segment_ids: Int[Array, "B S"]
    ) -> Memory:
        """What the decoder is told of each row's source."""
        return self.model.bind(params).encode_source(tokens, segment_ids=segment_ids)

    def _read_view(
        self,
        params: Mapping[str, Array],
        tokens: Int[Array, "B N"],
        start: Int[Array, ""],
        memory: Memory,
        *,
        size: int,
        room: int,
    ) -> Cache:
        """A cache with room for `room` tokens that has read `size` of them, from `start` on."""
        model = self.model.bind(params)
        cache = empty_cache(model, memory, tokens.shape[0], room)
        if size:
            view = jax.lax.dynamic_slice_in_dim(tokens, start, size, axis=1)
            _, cache = read(model, memory, view, cache)
        return cache_for_steps(self.model, for_steps(self.model, params), memory, cache, tokens.shape[0], room)

    def _advance_until(self, params: Mapping[str, Array], state: Decoding, until: Int[Array, ""]) -> Decoding:
        """Puts down the next tokens, up to position `until`, while any row goes on."""
        return advance(self.model.bind(params), state, until, self.sampler, self.end_of_text)


def advance(
    model: CausalLM | EncoderDecoder,
    state: Decoding,
    until: int | Int[Array, ""],
    sampler: Sampler,
    end_of_text: int | None,
) -> Decoding:
    """Reads tokens one by one and puts down the next ones, up to position `until`, while any row goes on."""

    def going(state: Decoding) -> Bool[Array, ""]:
        return (state.time < until) & ~jnp.all(state.done)

    return jax.lax.while_loop(going, partial(_next, model, sampler, end_of_text), state)


def _next(model: CausalLM | EncoderDecoder, sampler: Sampler, end_of_text: int | None, state: Decoding) -> Decoding:
    """One token more in every row."""
    latest = jax.lax.dynamic_slice_in_dim(state.tokens, state.time, 1, axis=1)
    hidden, cache = read(model, state.memory, latest, state.cache)
    time = state.time + 1
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, time)
    logits = model.project(hidden[:, 0])
    if isinstance(sampler, TextSampler):
        known = jnp.broadcast_to(jnp.arange(state.tokens.shape[1]) < time, state.tokens.shape)
        logits = sampler.weighed(logits, state.tokens, known)
    chosen = sampler(logits, keys)
    fill = 0 if end_of_text is None else end_of_text
    given = jax.lax.dynamic_index_in_dim(state.tokens, time, axis=1, keepdims=False)
    following = jnp.where(time < state.start, given, jnp.where(state.done, fill, chosen))
    ended = time + 1 >= state.end
    if end_of_text is not None:
        ended |= (time >= state.start) & (following == end_of_text)
    tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, following[:, None], time, axis=1)
    return state._replace(tokens=tokens, done=state.done | ended, time=time, cache=cache)


def targets(
    model: EncoderDecoder,
    memory: Memory,
    first: Int[Array, " B"],
    length: int,
    sampler: Sampler,
    end_of_text: int | None,
    seed: int = 0,
) -> Int[Array, "B N"]:
    """The targets that a model writes, N = `length` tokens at most: all of it inside a traced function.

    Args:
      model: with its parameters.
      memory: what `encode_source` gave.
      first: what each row reads first.
      length: N.
      sampler: chooses each next token.
      end_of_text: ends a row, which is filled up with it; None lets all rows go on to the end.
      seed: of the random numbers, as in `Decoder.stream`.
    """
    rows = first.shape[0]
    tokens = jnp.zeros((rows, length + 1), jnp.int32).at[:, 0].set(first)
    one = jnp.ones(rows, jnp.int32)
    state = begin(tokens, one, one * (length + 1), jnp.int32(0), jnp.uint32(seed))
    state = state._replace(memory=memory, cache=model.init_decoding(memory, length))
    written = advance(model, state, length, sampler, end_of_text)
    # Where all rows have ended early, nothing was put down behind.
    behind = jnp.arange(length) >= written.time
    return jnp.where(behind, 0 if end_of_text is None else end_of_text, written.tokens[:, 1:])


def begin(
    tokens: Int[Array, "B N"], start: Int[Array, " B"], end: Int[Array, " B"], time: Int[Array, ""], seed: Array
) -> Decoding:
    """Rows about to be continued; nothing is read yet."""
    keys = row_keys(stream_key(seed, GENERATION), jnp.arange(tokens.shape[0]))
    return Decoding(tokens, start, end, done=start >= end, time=time, keys=keys, cache=None, memory=None)


def laid_out(prompts: Sequence[np.ndarray], length: int, end_of_text: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Prompts with room for `length` tokens behind each, (B, N) int32, and their lengths, (B,) int32; see `opening`."""
    rows = [opening(prompt, end_of_text) for prompt in prompts]
    starts = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), int(starts.max()) + length), np.int32)
    for row, given in zip(tokens, rows, strict=True):
        row[: len(given)] = given
    return tokens, starts


def check_room(search: str, longest: int, length: int, reads: int, limit: int | None) -> None:
    """ConfigError where a search reads more tokens than the model has positions for.

    Args:
      search: what it is called.
      longest: tokens of the longest prompt.
      length: tokens that are added.
      reads: tokens that are read.
      limit: positions of the model, or None.
    """
    if limit is not None and reads > limit:
        raise ConfigError(
            f"{search} that adds {length} tokens to a prompt of {longest} reads {reads}, and the model has positions "
            f"for {limit}. Ask for at most {limit - reads + length}, or give a shorter prompt."
        )


def opening(prompt: np.ndarray, end_of_text: int | None) -> np.ndarray:
    """The prompt, or what stands before every document where it is empty; DataError where that is not known."""
    if len(prompt):
        return np.asarray(prompt, np.int32)
    if end_of_text is None:
        raise DataError("an empty prompt, and no tokenizer that says how a document begins: give token ids.")
    return np.array([end_of_text], np.int32)


def padded(sources: Sequence[np.ndarray], together: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Sources as ids with zeros behind, and 1 where there is one, (B, S) each; S is a multiple of `together`."""
    lengths = np.array([len(source) for source in sources])
    there = np.arange(max(lengths.max(initial=0), 1)) < lengths[:, None]
    tokens = np.zeros(there.shape, np.int32)
    tokens[there] = np.concatenate([np.asarray(source, np.int32) for source in sources])
    return _widened(tokens, together), _widened(there.astype(np.int32), together)


def _widened(rows: np.ndarray, together: int) -> np.ndarray:
    """With zeros behind each row, up to the next multiple."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % together))) if together > 1 else rows


def first_in_view(time: int, limit: int) -> int:
    """The first position that a model with a view of `limit` tokens still sees when it reads position `time`.

    A function of `time` alone, so that a row slides at the same places in whatever batch it is.

    Example (limit = 8): positions 0-7 see from 0, 8-11 from 4, 12-15 from 8.
    """
    stride = max(limit - limit // 2, 1)
    return 0 if time < limit else ((time - limit) // stride + 1) * stride
