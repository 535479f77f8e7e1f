"""The two halves of a text VAE, recurrent or Transformers: a reader that gives q(z | text), a writer that is told z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import Gaussian
from lmlab.nn.attention import KVCache, View
from lmlab.nn.blockwise import Sight
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.positions import PositionKind, Positions
from lmlab.nn.recurrence import Marks
from lmlab.nn.recurrent import LAYERS, Cell, Layer, LSTMLayer
from lmlab.nn.stack import Layers, Remat, is_layers
from lmlab.nn.transformer import Plan, make_blocks, run_blocks

Bound = float | Array


@dataclass(frozen=True)
class Sizes:
    """What both halves are made of; used while they are made, and not kept.

    Attributes:
      vocab, embedding, width, layers, latent: V, the embedding's width, D, L and Z.
      init_scale, embedding_scale: kernels and embeddings are uniform in so much around zero; biases start at zero.
      dropout: of what the writer embeds, and of what its layers give.
      heads, mlp_ratio, positions: of Transformers.
      length: tokens that a writer reads at most, where positions are learned.
      scan, remat: see `nn.stack`; of Transformers.
    """

    vocab: int
    embedding: int
    width: int
    layers: int
    latent: int
    init_scale: Bound
    embedding_scale: Bound
    dropout: Rate
    heads: int
    mlp_ratio: float
    positions: PositionKind
    length: int
    scan: bool
    remat: Remat

    def embeds(self, rngs: nnx.Rngs) -> Embedding:
        """An embedding of tokens."""
        return Embedding(self.vocab, self.embedding, uniform(self.embedding_scale), rngs=rngs)

    def maps(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
        """A linear map without a bias."""
        return Linear(inputs, outputs, uniform(self.init_scale), bias=False, rngs=rngs)

    def recurrent(self, cell: Cell, rngs: nnx.Rngs) -> nnx.List[Layer]:
        """L layers of a cell."""
        widths = [self.embedding] + [self.width] * (self.layers - 1)
        if cell == "lstm":
            return nnx.List([LSTMLayer(each, self.width, self.init_scale, rngs, forget_bias=0.0) for each in widths])
        return nnx.List([LAYERS[cell](each, self.width, self.init_scale, rngs) for each in widths])

    def transformer(self, *, writes: bool) -> Plan:
        """The plan of L pre-norm blocks."""
        init = uniform(self.init_scale)
        return Plan(
            self.width, self.heads, round(self.mlp_ratio * self.width), init, init, sight=Sight(causal=writes),
            dropout=self.dropout if writes else 0.0,
        )  # fmt: skip

    def places(self, rngs: nnx.Rngs, *, writes: bool) -> Positions:
        """Positions of the tokens that a half reads: a reader has one more, the last token's target."""
        return Positions(
            self.positions, uniform(self.embedding_scale), width=self.width, heads=self.heads,
            head_width=self.width // self.heads, length=self.length + (not writes), causal=writes, rngs=rngs,
        )  # fmt: skip


class RecurrentReader(nnx.Module):
    """q(z | text): the last state of a stack of recurrent layers, mapped to a mean and a log-variance.

    Args:
      cell: of the layers.
      sizes: of both halves.
      rngs: where initial values come from.
    """

    def __init__(self, cell: Cell, sizes: Sizes, rngs: nnx.Rngs) -> None:
        self.embedding = sizes.embeds(rngs)
        self.blocks = sizes.recurrent(cell, rngs)
        self.posterior = sizes.maps(sizes.width, 2 * sizes.latent, rngs)

    def __call__(self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None, dtype: Any) -> Gaussian:
        """The posterior of each row, float32; padding (0) is not read."""
        x, marks = self.embedding(tokens.T, dtype), Marks.of_reading(segment_ids)
        state: Any = None
        for layer in self.blocks:
            x, state = layer(by_rows(x, axis=1), layer.start(tokens.shape[0], layer.width), marks)
        return Gaussian(*jnp.split(self.posterior(state.h), 2, -1))


class RecurrentReading(NamedTuple):
    """What a recurrent writer remembers: its layers' states, (L, B, D), and how many tokens each row has read."""

    state: Any
    length: Int[Array, " B"]


class RecurrentWriter(nnx.Module):
    """p(text | z): a stack of recurrent layers between an embedding and a softmax.

    Args:
      cell: of the layers.
      sizes: of both halves.
      inputs: the first layer reads [x; z].
      state: the first state is tanh(W z); an LSTM's cell is W z.
      rngs: where initial values come from.
    """

    def __init__(self, cell: Cell, sizes: Sizes, *, inputs: bool, state: bool, rngs: nnx.Rngs) -> None:
        self.width, self.layers = sizes.width, sizes.layers
        self.embedding = sizes.embeds(rngs)
        self.first = sizes.maps(sizes.latent, sizes.layers * sizes.width, rngs) if state else None
        self.blocks = sizes.recurrent(cell, rngs)
        gates = LAYERS[cell].gates * sizes.width
        self.latent = sizes.maps(sizes.latent, gates, rngs) if inputs else None
        self.head = sizes.maps(sizes.width, sizes.vocab, rngs)
        self.dropout = Dropout(sizes.dropout)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        latent: Float[Array, "B Z"],
        segment_ids: Int[Array, "B T"] | None,
        cache: RecurrentReading | None,
        keys: Key[Array, " B"] | None,
        dtype: Any,
    ) -> tuple[Float[Array, "B T D"], RecurrentReading | None]:
        """States after each token, and the cache if one was given."""
        x, marks = self.dropout(self.embedding(tokens, dtype), keys, 0).swapaxes(0, 1), Marks.of_reading(segment_ids)
        # The first layer reads [x; z]: of the product with it, the share of z is the same at all steps.
        also = None if self.latent is None else self.latent(latent.astype(dtype))[None]
        states, ends = self._begin(latent, cache), []
        for depth, layer in enumerate(self.blocks):
            own = type(states)(*(part[depth] for part in states))
            x, end = layer(by_rows(x, axis=1), own, marks, also=None if depth else also)
            x = self.dropout(x.swapaxes(0, 1), keys, 1 + depth).swapaxes(0, 1)
            ends.append(end)
        if cache is None:
            return x.swapaxes(0, 1), None
        last = type(states)(*(jnp.stack(parts) for parts in zip(*ends, strict=True)))
        return x.swapaxes(0, 1), RecurrentReading(last, cache.length + _fresh(tokens, segment_ids))

    def init_cache(self, batch: int, length: int, dtype: Any) -> RecurrentReading:
        """The state before anything is read; it has the same size whatever `length` is."""
        return RecurrentReading(self._zeros(batch), jnp.zeros(batch, jnp.int32))

    def _begin(self, latent: Float[Array, "B Z"], cache: RecurrentReading | None) -> Any:
        """The states to go on from, (L, B, D): those of z where a row has read nothing."""
        fresh = self._zeros(len(latent))
        if self.first is not None:
            cells = self.first(latent.astype(jnp.float32)).reshape(-1, self.layers, self.width).swapaxes(0, 1)
            each = {"h": jnp.tanh(cells), "c": cells}
            fresh = type(fresh)(*(each[part] for part in fresh._fields))
        if cache is None:
            return fresh
        begun = (cache.length > 0)[:, None]
        return type(fresh)(*(jnp.where(begun, old, new) for old, new in zip(cache.state, fresh, strict=True)))

    def _zeros(self, batch: int) -> Any:
        return self.blocks[0].start(self.layers, batch, self.width)


class AttentiveReader(nnx.Module):
    """q(z | text): Transformer blocks that see both sides; the first token's state is mapped to mean and log-variance.

    As of BERT in Li et al. 2020 (arXiv:2004.04092, section 3.1). All that is there of a row is one text.

    Args:
      sizes: of both halves.
      rngs: where initial values come from.
    """

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        self.scan, self.remat = sizes.scan, sizes.remat
        self.embedding = sizes.embeds(rngs)
        self.widen = _widen(sizes, rngs)
        self.positions = sizes.places(rngs, writes=False)
        plan = sizes.transformer(writes=False)
        self.blocks = make_blocks(plan, sizes.layers, rngs)
        self.norm = plan.make_norm()
        self.posterior = sizes.maps(sizes.width, 2 * sizes.latent, rngs)

    def __call__(self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None, dtype: Any) -> Gaussian:
        """The posterior of each row, float32; padding (0) is not read."""
        batch, time = tokens.shape
        self.positions.require(time - 1, "text_vae")
        x = self.positions.add(_wide(self.widen, self.embedding(tokens, dtype)), None, None)
        turn, bias = self.positions.rotation(None, None, time), self.positions.score_bias(None, time, time)
        view = View(_one_text(segment_ids), turn, bias)
        x, _ = run_blocks(self.blocks, x.reshape(batch * time, -1), batch, view, scan=self.scan, remat=self.remat)
        first = self.norm(x).reshape(batch, time, -1)[:, 0].astype(jnp.float32)
        return Gaussian(*jnp.split(self.posterior(first), 2, -1))


class AttentiveWriter(nnx.Module):
    """p(text | z): Transformer blocks between an embedding and a softmax, told z as in Li et al. 2020 (section 3.2).

    Args:
      sizes: of both halves.
      inputs: W z is added to every embedded token.
      state: every layer has one more key and value, both W z, before the first token.
      rngs: where initial values come from.
    """

    def __init__(self, sizes: Sizes, *, inputs: bool, state: bool, rngs: nnx.Rngs) -> None:
        self.layers, self.heads, self.head_width = sizes.layers, sizes.heads, sizes.width // sizes.heads
        self.scan, self.remat = sizes.scan, sizes.remat
        self.embedding = sizes.embeds(rngs)
        self.widen = _widen(sizes, rngs)
        self.positions = sizes.places(rngs, writes=True)
        self.latent = sizes.maps(sizes.latent, sizes.width, rngs) if inputs else None
        self.memory = sizes.maps(sizes.latent, sizes.layers * sizes.width, rngs) if state else None
        plan = sizes.transformer(writes=True)
        self.blocks = make_blocks(plan, sizes.layers, rngs)
        self.norm = plan.make_norm()
        self.head = sizes.maps(sizes.width, sizes.vocab, rngs)
        self.dropout = Dropout(sizes.dropout)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        latent: Float[Array, "B Z"],
        segment_ids: Int[Array, "B T"] | None,
        cache: KVCache | None,
        keys: Key[Array, " B"] | None,
        dtype: Any,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """States after each token, normalised, and the cache if one was given, which counts the tokens of the text.

        Padding behind a text is not seen by it, whether a cache is there or not.
        """
        batch, time = tokens.shape
        x, read = _wide(self.widen, self.embedding(tokens, dtype)), None if cache is None else cache.length
        x = x if self.latent is None else x + self.latent(latent.astype(dtype))[:, None]
        x = self.dropout(self.positions.add(x, None, read), keys, 0)
        # The memory stands in the first slot of a cache: a text that is read at once has one for itself.
        slots = self.init_cache(batch, time, dtype) if cache is None and self.memory is not None else cache
        told = slots if slots is None else self._told(slots, latent)
        x, kept = run_blocks(
            self.blocks, x.reshape(batch * time, -1), batch, self._view(read, time, segment_ids, slots),
            cache=told, keys=keys, scan=self.scan, remat=self.remat,
        )  # fmt: skip
        states = self.norm(x).reshape(batch, time, -1)
        if cache is None or kept is None:
            return states, None
        return states, KVCache(*kept, cache.length + _fresh(tokens, segment_ids))

    def init_cache(self, batch: int, length: int, dtype: Any) -> KVCache:
        """An empty cache with `length` slots for each of `batch` rows, and one for the memory.

        Raises:
          ConfigError: there is no learned position for that many tokens.
        """
        self.positions.require(length, "text_vae")
        shape = (self.layers, batch, self.heads, length + (self.memory is not None), self.head_width)
        return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch, jnp.int32))

    def _told(self, cache: KVCache, latent: Float[Array, "B Z"]) -> KVCache:
        """The cache as the layers see it: with the memory of z, which counts as read."""
        if self.memory is None:
            return cache
        made = self.memory(latent.astype(cache.k.dtype))
        made = made.reshape(-1, self.layers, self.heads, 1, self.head_width).swapaxes(0, 1)

        def first(memory: Array, slots: Array) -> Array:
            return jnp.concatenate((memory, slots[..., 1:, :]), -2)

        apart = is_layers(cache.k)
        k, v = (jax.tree.map(first, Layers.of(made) if apart else made, part) for part in (cache.k, cache.v))
        return KVCache(k, v, cache.length + 1)

    def _view(
        self, read: Int[Array, " B"] | None, time: int, segment_ids: Int[Array, "B T"] | None, cache: KVCache | None
    ) -> View:
        memory = self.memory is not None
        slots = time if cache is None else cache.k.shape[3] - memory
        bias = self.positions.score_bias(read, time, slots)
        if bias is not None and memory:  # which is at no distance
            bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (1, 0)))
        return View(_one_text(segment_ids), self.positions.rotation(None, read, time), bias)


def _widen(sizes: Sizes, rngs: nnx.Rngs) -> Linear | None:
    """The map of an embedding to D, where they differ (Lan et al. 2020, arXiv:1909.11942, section 3.1)."""
    return None if sizes.embedding == sizes.width else sizes.maps(sizes.embedding, sizes.width, rngs)


def _wide(widen: Linear | None, x: Float[Array, "B T E"]) -> Float[Array, "B T D"]:
    if widen is None:
        return x
    return widen(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def _one_text(segment_ids: Int[Array, "B T"] | None) -> Int[Array, "B T"] | None:
    """All that is there is one text."""
    return None if segment_ids is None else (segment_ids != 0).astype(jnp.int32)


def _fresh(tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None) -> int | Int[Array, " B"]:
    """Tokens that each row reads."""
    return tokens.shape[1] if segment_ids is None else (segment_ids != 0).sum(1, dtype=jnp.int32)
