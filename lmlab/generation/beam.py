"""The most probable continuations that a search finds which keeps several of them on the way (beam search)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.errors import ConfigError
from lmlab.generation.decoding import empty_cache, opening, padded, read

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

    from lmlab.contracts import Cache, Memory
    from lmlab.nn.functional import ModelDef

NEVER = float("-inf")
"""The score of what is no hypothesis."""
NO_ROWS = -1
"""The axis of rows of what has none."""


class Hypothesis(NamedTuple):
    """A continuation that was found.

    Attributes:
      tokens: int32, without the end of text.
      log_probability: of all of them, and of the end of text where it is reached, in nats.
      score: what it was ranked by.
    """

    tokens: np.ndarray
    log_probability: float
    score: float


class Beams(NamedTuple):
    """A search on its way; `cache` has read the positions before `time`.

    Attributes:
      tokens: what is on its way, known up to `time`.
      sums: its log-probability; -inf where a beam is empty.
      kept: the best that have ended.
      kept_sums, scores: their log-probability, and what they are ranked by, the best first; -inf where there is none.
      ends: the position behind the last token of each.
      done: rows in which nothing can change any more.
      time: the position that is read next.
      cache: of B·K rows.
      memory: what the sources of B·K rows say; None without such.
    """

    tokens: Int[Array, "B K N"]
    sums: Float[Array, "B K"]
    kept: Int[Array, "B K N"]
    kept_sums: Float[Array, "B K"]
    scores: Float[Array, "B K"]
    ends: Int[Array, "B K"]
    done: Bool[Array, " B"]
    time: Int[Array, ""]
    cache: Cache
    memory: Memory


class BeamSearch:
    """Compiled beam search with one model.

    Hypotheses of n tokens, the end of text included, are ranked by log p / n^length_penalty. Only what has ended, or is
    as long as it may be, is a hypothesis; a row is searched until nothing on its way can come to a better score than
    the worst hypothesis that it keeps. With as many beams as there are beginnings it finds the best of all.

    What is found for a row does not depend on the rows beside it.

    Args:
      model: the definition of a causal model or of an encoder-decoder.
      beams: continuations kept on the way, and hypotheses kept at the end, K.
      length_penalty: 0 ranks by log p, which prefers short texts; 1 by log p per token; larger ones prefer long texts.
      end_of_text: the id that ends a hypothesis (and begins an empty prompt), or None.
      limit: the most tokens that the model can read (learned positions), or None.

    Raises:
      ConfigError: there is no beam.
    """

    def __init__(
        self,
        model: ModelDef[Any],
        *,
        beams: int,
        length_penalty: float = 1.0,
        end_of_text: int | None = None,
        limit: int | None = None,
    ) -> None:
        if beams < 1:
            raise ConfigError(f"{beams} beams: there must be at least 1.")
        self.model, self.beams, self.limit = model, beams, limit
        self.length_penalty, self.end_of_text = length_penalty, end_of_text
        self._search = jax.jit(self._searched)

    def search(
        self,
        params: Mapping[str, Array],
        prompts: Sequence[np.ndarray],
        *,
        length: int,
        sources: Sequence[np.ndarray] | None = None,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each row, the best first; fewer than there are beams where no more were possible.

        Args:
          params: path -> array.
          prompts: one 1-d integer array per row; an empty one stands for the beginning of a document.
          length: the most tokens to add to each row, the end of text included.
          sources: for an encoder-decoder, what each row is the target of: 1-d integer arrays.

        Raises:
          ConfigError: the model cannot read as much.
        """
        rows = [opening(prompt, self.end_of_text) for prompt in prompts]
        start = np.array([len(row) for row in rows], np.int32)
        width = int(start.max()) + length
        if self.limit is not None and width - 1 > self.limit:
            raise ConfigError(
                f"a search that adds {length} tokens to a prompt of {start.max()} reads {width - 1}, and the model has "
                f"positions for {self.limit}. Ask for at most {self.limit + 1 - start.max()}, or give a shorter prompt."
            )
        tokens = np.zeros((len(rows), width), np.int32)
        for row, given in zip(tokens, rows, strict=True):
            row[: len(given)] = given
        told = None if sources is None else padded(sources)
        found: Beams = jax.device_get(self._search(params, tokens, start, np.int32(length), told))
        return [self._hypotheses(found, b, int(start[b])) for b in range(len(rows))]

    def _hypotheses(self, found: Beams, b: int, start: int) -> list[Hypothesis]:
        made = []
        for k in np.flatnonzero(found.scores[b] > NEVER):
            tokens = np.asarray(found.kept)[b, k, start : found.ends[b, k]]
            if self.end_of_text is not None and len(tokens) and tokens[-1] == self.end_of_text:
                tokens = tokens[:-1]
            made.append(Hypothesis(tokens, float(found.kept_sums[b, k]), float(found.scores[b, k])))
        return made

    def _searched(
        self,
        params: Mapping[str, Array],
        tokens: Int[Array, "B N"],
        start: Int[Array, " B"],
        length: Int[Array, ""],
        told: tuple[Int[Array, "B S"], Int[Array, "B S"]] | None,
    ) -> Beams:
        """The search from its beginning to its end; the cache and the memory are left out of what it returns."""
        model, (rows, width) = self.model.bind(params), tokens.shape
        memory = None
        if told is not None:
            several = (jnp.repeat(each, self.beams, axis=0) for each in told)
            memory = model.encode_source(next(several), segment_ids=next(several))
        nothing = jnp.full((rows, self.beams), NEVER)
        copies = jnp.repeat(tokens[:, None], self.beams, axis=1)
        state = Beams(
            copies, nothing.at[:, 0].set(0.0), copies, nothing, nothing, jnp.zeros(nothing.shape, jnp.int32),
            jnp.zeros(rows, bool), jnp.int32(0), empty_cache(model, memory, rows * self.beams, width), memory,
        )  # fmt: skip
        axes = rows_of_cache(model, memory, width)
        step = partial(self._step, model, tokens, start, start + length, axes)
        found = jax.lax.while_loop(lambda s: (s.time < width - 1) & ~s.done.all(), step, state)
        return found._replace(cache=None, memory=None)

    def _step(
        self,
        model: Any,
        given: Int[Array, "B N"],
        start: Int[Array, " B"],
        end: Int[Array, " B"],
        axes: Any,
        state: Beams,
    ) -> Beams:
        """One token more in every beam."""
        rows, beams, _ = state.tokens.shape
        latest = jax.lax.dynamic_slice_in_dim(state.tokens, state.time, 1, axis=2).reshape(rows * beams, 1)
        hidden, cache = read(model, state.memory, latest, state.cache)
        log_p = jax.nn.log_softmax(model.project(hidden[:, 0]).astype(jnp.float32)).reshape(rows, beams, -1)
        time = state.time + 1
        state = state._replace(time=time, cache=cache)
        reading = (time < start) | state.done  # rows whose prompt goes on, or which have ended

        # At most one continuation of each beam ends the text, so that beams go on in half of twice as many.
        each = state.sums[:, :, None] + log_p
        sums, places = jax.lax.top_k(each.reshape(rows, -1), min(2 * beams, each[0].size))
        source, token = jnp.divmod(places, each.shape[-1])
        tokens = jnp.take_along_axis(state.tokens, source[:, :, None], axis=1).at[:, :, time].set(token)
        ended = jnp.zeros(token.shape, bool) if self.end_of_text is None else token == self.end_of_text
        last = (time == end - 1)[:, None]
        count = jnp.maximum(time + 1 - start, 1).astype(jnp.float32)[:, None] ** self.length_penalty
        state = self._keep(state, tokens, sums, jnp.where((ended | last) & ~reading[:, None], sums / count, NEVER))

        going, chosen = jax.lax.top_k(jnp.where(ended, NEVER, sums), min(beams, sums.shape[1]))
        going, chosen = _as_many(going, NEVER, beams), _as_many(chosen, 0, beams)
        origin = jnp.where(reading[:, None], jnp.arange(beams), jnp.take_along_axis(source, chosen, axis=1))
        forced = state.tokens.at[:, :, time].set(jax.lax.dynamic_index_in_dim(given, time, axis=1))
        following = jnp.take_along_axis(tokens, chosen[:, :, None], axis=1)
        flat = (jnp.arange(rows)[:, None] * beams + origin).reshape(-1)
        state = state._replace(
            tokens=jnp.where(reading[:, None, None], forced, following),
            sums=jnp.where(reading[:, None], state.sums, going),
            cache=jax.tree.map(lambda x, axis: x if axis == NO_ROWS else jnp.take(x, flat, axis), cache, axes),
        )
        return state._replace(done=state.done | (last[:, 0] & ~reading) | self._settled(state, start, end))

    def _keep(self, state: Beams, tokens: Array, sums: Array, scores: Array) -> Beams:
        """The best of the hypotheses that were kept and of these."""
        scores = jnp.concatenate([state.scores, scores], axis=1)
        scores, chosen = jax.lax.top_k(scores, self.beams)
        ends = jnp.concatenate([state.ends, jnp.full(sums.shape, state.time + 1)], axis=1)
        sums = jnp.concatenate([state.kept_sums, sums], axis=1)
        kept = jnp.take_along_axis(jnp.concatenate([state.kept, tokens], axis=1), chosen[:, :, None], axis=1)
        return state._replace(
            kept=kept, scores=scores, kept_sums=jnp.take_along_axis(sums, chosen, axis=1),
            ends=jnp.take_along_axis(ends, chosen, axis=1),
        )  # fmt: skip

    def _settled(self, state: Beams, start: Int[Array, " B"], end: Int[Array, " B"]) -> Bool[Array, " B"]:
        """Rows in which nothing on its way can still come to a better score than all that is kept.

        A sum only falls; divided by n^penalty it is best at the greatest length if the penalty is positive, else now.
        """
        count = jnp.where(self.length_penalty > 0, end - start, jnp.maximum(state.time + 1 - start, 1))
        best = state.sums.max(1) / count.astype(jnp.float32) ** self.length_penalty
        return (best <= state.scores.min(1)) & (state.time >= start)


def rows_of_cache(model: Any, memory: Memory, length: int) -> Any:
    """Where each leaf of a model's cache has its rows, as a tree of axes; `NO_ROWS` where a leaf has none.

    Found by asking for caches of two and of three rows: models keep them where they like.
    """

    def shapes(rows: int) -> Any:
        told = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), memory)
        return jax.eval_shape(lambda: empty_cache(model, told, rows, length))

    def axis(two: Any, three: Any) -> int:
        found = [i for i, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if (a, b) == (2, 3)]
        return found[0] if found else NO_ROWS

    return jax.tree.map(axis, shapes(2), shapes(3))


def _as_many(values: Array, filler: float, count: int) -> Array:
    """Filled up to (B, count), where fewer continuations than beams are possible."""
    missing = count - values.shape[1]
    return jnp.pad(values, ((0, 0), (0, missing)), constant_values=filler) if missing else values
