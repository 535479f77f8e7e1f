"""n-gram language models, which count instead of learning by gradient (Chen & Goodman 1998)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.functional import Params, parameters
from lmlab.ranges import Count, NonNegative
from lmlab.registry import models

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2 and more, where the numbers of n-grams that occur once, twice, ... give no estimate."""
_TOGETHER = 128  # continuations of each context that are looked up at a time


class Table(nnx.Module):
    """The n-grams of one order that have occurred, sorted, and how often.

    Args:
      order: m; the oldest token stands first.
      size: rows C; those behind the ones in use hold the id `unused`, and the count 0.
      unused: greater than every id.
    """

    def __init__(self, order: int, size: int, unused: int) -> None:
        self.grams = nnx.Param(jnp.full((size, order), unused, jnp.int32), role="embedding")
        self.counts = nnx.Param(jnp.zeros(size, jnp.int32), role="embedding")


@models.register("ngram")
class NGram(nnx.Module):
    """The relative frequencies of tokens after the n - 1 tokens before them, smoothed.

    A step of training adds its batch's n-grams to tables on the device, which are sorted anew: large batches make it
    fast, and `steps` times `global_batch_size` rows are counted, once over the corpus if these are as many as it has.
    A context reaches back to the beginning of its document or row, where a mark of its own stands.

    Interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1998, section 4.1.6), for every order m:
      p_m(w | h) = max(c(h w) - d, 0) / c(h) + d · T(h) / c(h) · p_m-1(w | h'), with p_m-1(w | h') where c(h) = 0,
    c being the number of occurrences at the highest order, and at the lower ones that of different tokens before the
    n-gram; T(h) the number of different tokens after h; h' is h without its oldest token; p_0 = 1 / V; and
    d = n1 / (n1 + 2 n2), with nk the number of n-grams of count k. The modified kind has three discounts, for counts of
    1, 2 and more. Where these numbers give no discount above 0, it is 0.5 (0.5, 1 and 1.5).

    Capabilities: CountedLM (a CausalLM).

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      run_targets: targets that the run reads at most (given by the program), so that no table can overflow.
      order: n.
      smoothing: `modified_kneser_ney`, `kneser_ney`, or `add`: (c(h w) + k) / (c(h) + k V) at the highest order.
      add: k of `add`. With 0, maximum likelihood, the next shorter context stands for one that never occurred.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("autoregressive",)
    TINY: ClassVar[str] = "ngram.order = 3\nexperiment.optimizer = @counting"

    def __init__(
        self,
        vocab: int,
        run_targets: int,
        *,
        order: Count = 3,
        smoothing: Literal["modified_kneser_ney", "kneser_ney", "add"] = "modified_kneser_ney",
        add: NonNegative = 0.0,
    ) -> None:
        self.vocab, self.order, self.smoothing, self.add = vocab, order, smoothing, _Number(add)
        sizes = [min(run_targets, vocab * (vocab + 1) ** m) for m in range(order)]
        self.tables = nnx.List([Table(m, size, vocab + 1) for m, size in enumerate(sizes, 1)])

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Int[Array, "B D"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Int[Array, "B T D"], Int[Array, "B D"] | None]:
        """The last D = n - 1 ids (at least one) up to each token, the oldest first; V stands before the first.

        Args:
          tokens: ids.
          positions: not used: the context knows the order.
          segment_ids: the document of each token.
          cache: the last D ids of what was read before.
          keys: not used: there is no dropout.
        """
        del positions, keys
        width, time = max(self.order - 1, 1), tokens.shape[1]
        before = self.init_cache(len(tokens), 0) if cache is None else cache
        row = jnp.concatenate([before, tokens.astype(jnp.int32)], 1)
        ids = jnp.stack([row[:, 1 + place : 1 + place + time] for place in range(width)], -1)
        if cache is None and segment_ids is not None:
            marks = jnp.pad(segment_ids, ((0, 0), (width, 0)), constant_values=-1)
            segments = jnp.stack([marks[:, 1 + place : 1 + place + time] for place in range(width)], -1)
            ids = jnp.where(segments == segment_ids[..., None], ids, self.vocab)
        if cache is None:
            return ids, None
        read = jnp.full(len(row), time) if segment_ids is None else (segment_ids != 0).sum(1)
        return ids, jax.vmap(lambda ids, start: jax.lax.dynamic_slice(ids, (start,), (width,)))(row, read)

    def project(self, hidden: Int[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logarithms of the next token's probabilities, float32; minus infinity for what has none."""
        contexts = hidden.reshape(-1, hidden.shape[-1])
        p = jnp.full((len(contexts), self.vocab), 1 / self.vocab)
        for m, table in enumerate(self.tables, 1):
            p = self._interpolated(table, contexts[:, contexts.shape[1] - m + 1 :], p)
        return jnp.log(p).reshape(*hidden.shape[:-1], self.vocab)

    def init_cache(self, batch: int, length: int) -> Int[Array, "B D"]:
        """The ids before the first token; as many whatever `length` is."""
        return jnp.full((batch, max(self.order - 1, 1)), self.vocab, jnp.int32)

    def count(self, batch: Mapping[str, Array]) -> Params:
        """The parameters, by path, after the n-grams of a TokenBatch's targets (of weight above 0) were added."""
        unused = self.vocab + 1
        there = (batch["weights"] > 0).reshape(-1)
        contexts, _ = self.hidden(batch["tokens"], segment_ids=batch.get("segment_ids"))
        new = jnp.concatenate([contexts, batch["targets"][..., None]], -1).reshape(len(there), -1)[:, -self.order :]
        top = self.tables[-1]
        grams = jnp.concatenate([top.grams[...], jnp.where(there[:, None], new, unused)])
        counts = jnp.concatenate([top.counts[...], there.astype(jnp.int32)])
        for table in reversed(list(self.tables)):
            grams, counts = _merged(grams, counts, table.counts.shape[0], unused)
            table.grams[...], table.counts[...] = grams, counts
            grams = grams[:, 1:]
            if self.smoothing != "add":  # an n-gram counts once for each token before it
                counts = jnp.minimum(counts, 1)
        return parameters(self)

    def _interpolated(
        self, table: Table, contexts: Int[Array, "N M"], lower: Float[Array, "N V"]
    ) -> Float[Array, "N V"]:
        """p_m of every token after each context, from p_m-1."""
        grams, counts = table.grams[...], table.counts[...]
        first, end = _range(grams, counts, contexts)
        total = _sum_between(counts, first, end)[:, None].astype(jnp.float32)
        if self.smoothing == "add":
            k = self.add.value
            denominator = total + k * self.vocab
            found = _scattered(grams, counts.astype(jnp.float32), first, end, jnp.full_like(lower, k))
            return jnp.where(denominator > 0, found / jnp.where(denominator > 0, denominator, 1), lower)
        discounts = _discounts(counts, modified=self.smoothing == "modified_kneser_ney")
        kinds = [_sum_between(kind.astype(jnp.int32), first, end) for kind in _kinds(counts)]
        left = sum(discount * kind for discount, kind in zip(discounts, kinds, strict=True))[:, None]
        own = jnp.maximum(counts - discounts[jnp.clip(counts, 1, 3) - 1], 0.0)
        found = _scattered(grams, own, first, end, left * lower)
        return jnp.where(total > 0, found / jnp.maximum(total, 1), lower)


class _Number:
    """A number that may be a tracer, kept from the module's state by being no array."""

    def __init__(self, value: float | Array) -> None:
        self.value = value


def _merged(
    grams: Int[Array, "N m"], counts: Int[Array, " N"], size: int, unused: int
) -> tuple[Int[Array, "C m"], Int[Array, " C"]]:
    """The different n-grams, sorted, and the sums of their counts."""
    order = grams.shape[1]
    *columns, counts = jax.lax.sort((*grams.T, counts), num_keys=order)
    grams = jnp.stack(columns, 1)
    starts = jnp.concatenate([jnp.zeros(1, bool), (grams[1:] != grams[:-1]).any(1)])
    place = jnp.cumsum(starts)  # where there is no room, unused rows stand: what has no place is dropped
    merged = jnp.full((size, order), unused, jnp.int32).at[place].set(grams, mode="drop")
    return merged, jnp.zeros(size, jnp.int32).at[place].add(counts, mode="drop")


def _range(
    grams: Int[Array, "C m"], counts: Int[Array, " C"], contexts: Int[Array, "N M"]
) -> tuple[Int[Array, " N"], Int[Array, " N"]]:
    """The rows of a table that begin with each context: from, and up to."""
    if not contexts.shape[1]:
        zeros = jnp.zeros(len(contexts), jnp.int32)
        return zeros, zeros + (counts > 0).sum(dtype=jnp.int32)
    return _search(grams, contexts, after=False), _search(grams, contexts, after=True)


def _search(grams: Int[Array, "C m"], wanted: Int[Array, "N M"], *, after: bool) -> Int[Array, " N"]:
    """The first row that is not before each of the wanted beginnings; or the first that is `after` it."""

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        rows = grams[jnp.minimum(middle, len(grams) - 1)]
        before: Bool[Array, " N"] = jnp.full(len(wanted), after)
        for column in reversed(range(wanted.shape[1])):
            one, other = rows[:, column], wanted[:, column]
            before = (one < other) | ((one == other) & before)
        before = before & (low < high)
        return jnp.where(before, middle + 1, low), jnp.where(before | (low >= high), high, middle)

    zeros = jnp.zeros(len(wanted), jnp.int32)
    return jax.lax.fori_loop(0, len(grams).bit_length(), halve, (zeros, zeros + len(grams)))[0]


def _sum_between(values: Int[Array, " C"], first: Int[Array, " N"], end: Int[Array, " N"]) -> Int[Array, " N"]:
    sums = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(values)])
    return sums[end] - sums[first]


def _scattered(
    grams: Int[Array, "C m"],
    values: Float[Array, " C"],
    first: Int[Array, " N"],
    end: Int[Array, " N"],
    base: Float[Array, "N V"],
) -> Float[Array, "N V"]:
    """`base`, plus at each row's last token its value, for the rows of a table that belong to each context."""
    width = min(_TOGETHER, base.shape[1])
    rows = jnp.arange(len(base))[:, None]

    def more(state: tuple[Array, Array]) -> Array:
        return (first + state[0] < end).any()

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        done, found = state
        at = first[:, None] + done + jnp.arange(width)
        value = jnp.where(at < end[:, None], values[jnp.minimum(at, len(values) - 1)], 0)
        token = grams[jnp.minimum(at, len(values) - 1), -1]
        return done + width, found.at[rows, token].add(value, mode="drop")

    return jax.lax.while_loop(more, step, (jnp.zeros((), jnp.int32), base))[1]


def _kinds(counts: Int[Array, " C"]) -> tuple[Bool[Array, " C"], ...]:
    """Which n-grams have a count of 1, of 2, of more."""
    return counts == 1, counts == 2, counts > 2


def _discounts(counts: Int[Array, " C"], *, modified: bool) -> Float[Array, " 3"]:
    """What is taken from counts of 1, 2 and more (Chen & Goodman 1998, equations 17 and 26)."""
    n = [(counts == k).sum(dtype=jnp.int32).astype(jnp.float32) for k in (1, 2, 3, 4)]
    ratio = n[0] / (n[0] + 2 * n[1])
    if not modified:
        return jnp.where(n[0] > 0, ratio, FALLBACK[0]) * jnp.ones(3)  # 0 would make impossible what is only new
    estimates = jnp.stack([k - (k + 1) * ratio * n[k] / n[k - 1] for k in (1, 2, 3)])
    # An estimate that is not between 0 and its count is that of a table with too few of some count.
    usable = (estimates > 0) & (estimates <= jnp.arange(1, 4))
    return jnp.where(usable.all(), estimates, jnp.array(FALLBACK))
