"""The most probable continuations that a search finds which keeps several of them on the way (beam search)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

NEVER = float("-inf")
"""The score of what is no hypothesis."""


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


@dataclass(frozen=True)
class BeamOptions:
    """How wide a beam search is, and what it prefers.

    Hypotheses of n tokens, the end of text included, are ranked by log p / n^length_penalty.

    Several groups of beams are searched side by side for texts that differ (diverse beam search, Vijayakumar et al.
    2016, arXiv:1610.02424, section 4): at each position the groups choose one after the other, and each prefers tokens
    that few beams of the earlier groups have chosen there (the Hamming diversity of section 4.2). A group's choice is
    by log p - diversity × that number of beams; what it finds is still ranked by log p alone.

    Args:
      beams: continuations kept on the way, and hypotheses kept at the end, K.
      length_penalty: 0 ranks by log p, which prefers short texts; 1 by log p per token; larger ones prefer long texts.
      groups: of K / groups beams each; 1 is the ordinary search.
      diversity: nats that a choice of each beam before costs the same choice in a later group.

    Raises:
      ConfigError: there is no beam, the groups are not equally large, or the diversity is below 0.
    """

    beams: int
    length_penalty: float = 1.0
    groups: int = 1
    diversity: float = 0.5

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"{self.beams} beams: there must be at least 1.")
        if self.groups < 1 or self.beams % self.groups:
            raise ConfigError(f"{self.beams} beams in {self.groups} groups: groups must be equally large.")
        if not self.diversity >= 0:
            raise ConfigError(f"a diversity of {self.diversity}: it must be at least 0.")


class Beams(NamedTuple):
    """A search on its way, each group of beams in a row of its own; `cache` has read the positions before `time`.

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

    Only what has ended, or is as long as it may be, is a hypothesis; a row is searched until nothing on its way can
    come to a better score than the worst hypothesis that it keeps. With as many beams as there are beginnings it finds
    the best of all.

    What is found for a row does not depend on the rows beside it.

    Args:
      model: the definition of a causal model or of an encoder-decoder.
      options: how wide the search is, and what it prefers.
      end_of_text: the id that ends a hypothesis (and begins an empty prompt), or None.
      limit: the most tokens that the model can read (learned positions), or None.
    """

    def __init__(
        self,
        model: ModelDef[Any],
        options: BeamOptions,
        *,
        end_of_text: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.model, self.options, self.limit, self.end_of_text = model, options, limit, end_of_text
        self._beams = options.beams // options.groups  # of a group
        self._search = jax.jit(self._searched)

    def search(
        self,
        params: Mapping[str, Array],
        prompts: Sequence[np.ndarray],
        *,
        length: int,
        sources: Sequence[np.ndarray] | None = None,
        together: int = 1,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each row, the best first; fewer than there are beams where no more were possible.

        Args:
          params: path -> array.
          prompts: one 1-d integer array per row; an empty one stands for the beginning of a document.
          length: the most tokens to add to each row, the end of text included.
          sources: for an encoder-decoder, what each row is the target of: 1-d integer arrays.
          together: sources whose lengths lie between the same multiples of this share a compiled program.

        Raises:
          ConfigError: the model cannot read as much.
        """
        tokens, start = laid_out(prompts, length, self.end_of_text)
        check_room("a search", int(start.max()), length, tokens.shape[1] - 1, self.limit)
        told = None if sources is None else padded(sources, together)
        found: Beams = jax.device_get(self._search(params, tokens, start, np.int32(length), told))
        return [self._hypotheses(found, b, int(start[b])) for b in range(len(start))]

    def _hypotheses(self, found: Beams, row: int, start: int) -> list[Hypothesis]:
        """What the groups of a row have found, each text once."""
        made: dict[bytes, Hypothesis] = {}
        for b in range(row * self.options.groups, (row + 1) * self.options.groups):
            for k in np.flatnonzero(found.scores[b] > NEVER):
                tokens = np.asarray(found.kept)[b, k, start : found.ends[b, k]]
                ended = self.end_of_text is not None and len(tokens) > 0 and tokens[-1] == self.end_of_text
                one = Hypothesis(
                    tokens[:-1] if ended else tokens, float(found.kept_sums[b, k]), float(found.scores[b, k])
                )
                made.setdefault(tokens.tobytes(), one)
        return sorted(made.values(), key=lambda one: -one.score)

    def _searched(
        self,
        params: Mapping[str, Array],
        tokens: Int[Array, "B N"],
        start: Int[Array, " B"],
        length: Int[Array, ""],
        told: tuple[Int[Array, "B S"], Int[Array, "B S"]] | None,
    ) -> Beams:
        """The search from its beginning to its end; the cache and the memory are left out of what it returns."""
        tokens, start = (jnp.repeat(each, self.options.groups, axis=0) for each in (tokens, start))
        params = for_steps(self.model, params)
        model, (rows, width) = self.model.bind(params), tokens.shape
        memory = None
        if told is not None:
            several = (jnp.repeat(each, self.options.beams, axis=0) for each in told)
            memory = model.encode_source(next(several), segment_ids=next(several))

        def empty(memory: Memory, rows: int) -> Cache:
            return empty_for_steps(self.model, params, memory, rows, width)

        nothing = jnp.full((rows, self._beams), NEVER)
        copies = jnp.repeat(tokens[:, None], self._beams, axis=1)
        state = Beams(
            copies, nothing.at[:, 0].set(0.0), copies, nothing, nothing, jnp.zeros(nothing.shape, jnp.int32),
            jnp.zeros(rows, bool), jnp.int32(0), empty(memory, rows * self._beams), memory,
        )  # fmt: skip
        axes = rows_of_cache(empty, memory)
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

        ranks, sums, source, token = self._continuations(state.sums[:, :, None] + log_p, ~reading)
        tokens = jnp.take_along_axis(state.tokens, source[:, :, None], axis=1).at[:, :, time].set(token)
        ended = jnp.zeros(token.shape, bool) if self.end_of_text is None else token == self.end_of_text
        last = (time == end - 1)[:, None]
        count = jnp.maximum(time + 1 - start, 1).astype(jnp.float32)[:, None] ** self.options.length_penalty
        state = self._keep(state, tokens, sums, jnp.where((ended | last) & ~reading[:, None], sums / count, NEVER))

        _, chosen = jax.lax.top_k(jnp.where(ended, NEVER, ranks), min(beams, sums.shape[1]))
        going = _as_many(jnp.take_along_axis(jnp.where(ended, NEVER, sums), chosen, axis=1), NEVER, beams)
        chosen = _as_many(chosen, 0, beams)
        origin = jnp.where(reading[:, None], jnp.arange(beams), jnp.take_along_axis(source, chosen, axis=1))
        forced = state.tokens.at[:, :, time].set(jax.lax.dynamic_index_in_dim(given, time, axis=1))
        following = jnp.take_along_axis(tokens, chosen[:, :, None], axis=1)
        flat = (jnp.arange(rows)[:, None] * beams + origin).reshape(-1)
        state = state._replace(
            tokens=jnp.where(reading[:, None, None], forced, following),
            sums=jnp.where(reading[:, None], state.sums, going),
            cache=picked(cache, axes, flat),
        )
        return state._replace(done=state.done | (last[:, 0] & ~reading) | self._settled(state, start, end))

    def _continuations(
        self, sums: Float[Array, "B K V"], writing: Bool[Array, " B"]
    ) -> tuple[Float[Array, "B C"], Float[Array, "B C"], Int[Array, "B C"], Int[Array, "B C"]]:
        """The C continuations of each group that it ranks best: by what, their log p, their beam, and their token.

        At most one continuation of each beam ends the text, so that beams go on in half of twice as many.
        """
        rows, beams, vocab = sums.shape
        count = min(2 * beams, beams * vocab)
        groups = self.options.groups

        def choose(chosen: Float[Array, "R V"], given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            """One group's choice in every row; `chosen` counts the beams of the earlier groups that took a token."""
            sums, writing = given
            ranked = (sums - self.options.diversity * chosen[:, None]).reshape(len(sums), -1)
            ranks, places = jax.lax.top_k(ranked, count)
            token = places % vocab
            goes_on = (ranks > NEVER) & writing[:, None]
            if self.end_of_text is not None:
                goes_on &= token != self.end_of_text
            goes_on &= jnp.cumsum(goes_on, axis=1) <= beams
            return chosen.at[jnp.arange(len(sums))[:, None], token].add(goes_on), (ranks, places)

        grouped = (sums.reshape(-1, groups, beams, vocab), writing.reshape(-1, groups))
        none = jnp.zeros((rows // groups, vocab))
        _, found = jax.lax.scan(choose, none, jax.tree.map(lambda x: x.swapaxes(0, 1), grouped))
        ranks, places = (x.swapaxes(0, 1).reshape(rows, count) for x in found)
        return ranks, jnp.take_along_axis(sums.reshape(rows, -1), places, axis=1), places // vocab, places % vocab

    def _keep(self, state: Beams, tokens: Array, sums: Array, scores: Array) -> Beams:
        """The best of the hypotheses that were kept and of these."""
        scores = jnp.concatenate([state.scores, scores], axis=1)
        scores, chosen = jax.lax.top_k(scores, self._beams)
        ends = jnp.concatenate([state.ends, jnp.full(sums.shape, state.time + 1)], axis=1)
        sums = jnp.concatenate([state.kept_sums, sums], axis=1)
        kept = jnp.take_along_axis(jnp.concatenate([state.kept, tokens], axis=1), chosen[:, :, None], axis=1)
        return state._replace(
            kept=kept, scores=scores, kept_sums=jnp.take_along_axis(sums, chosen, axis=1),
            ends=jnp.take_along_axis(ends, chosen, axis=1),
        )  # fmt: skip

    def _settled(self, state: Beams, start: Int[Array, " B"], end: Int[Array, " B"]) -> Bool[Array, " B"]:
        """Rows in which nothing on its way can still come to a better score than all that is kept, in any group.

        A sum only falls; divided by n^penalty it is best at the greatest length if the penalty is positive, else now.
        A group goes on while another one does: its choices count there.
        """
        penalty = self.options.length_penalty
        count = jnp.where(penalty > 0, end - start, jnp.maximum(state.time + 1 - start, 1))
        best = state.sums.max(1) / count.astype(jnp.float32) ** penalty
        settled = (best <= state.scores.min(1)) & (state.time >= start)
        groups = self.options.groups
        return jnp.repeat(settled.reshape(-1, groups).all(axis=1), groups)


def _as_many(values: Array, filler: float, count: int) -> Array:
    """Filled up to (B, count), where fewer continuations than beams are possible."""
    missing = count - values.shape[1]
    return jnp.pad(values, ((0, 0), (0, missing)), constant_values=filler) if missing else values
