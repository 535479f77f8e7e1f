"""Hyena (Poli et al. 2023, arXiv:2302.10866): long convolutions and gates in the place of attention."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.errors import ConfigError
from lmlab.nn.convolution import DepthwiseConv, Window, advanced
from lmlab.nn.linear import Initializer, Linear, normal, uniform
from lmlab.nn.long_convolution import long_convolution
from lmlab.nn.mlp import MLP, Activation
from lmlab.nn.norm import LayerNorm
from lmlab.nn.reading import Reading
from lmlab.nn.stack import Remat
from lmlab.nn.stacked_lm import Block, StackedLM
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction, Within
from lmlab.registry import models


class HyenaCache(NamedTuple):
    """What one block keeps: all inputs of its long convolutions, since these have no state that would stand for them.

    Attributes:
      short: the last inputs of the short convolution.
      long: the inputs of each of the N long ones, the latest last: as many as will be read, but one.
    """

    short: Window
    long: tuple[Window, ...]


class ImplicitFilter(nnx.Module):
    """Filters as a function of the lag: window(t) · FFN(features(t)) (section 3.3, equation 7, and appendix D.3).

    Features are t / T and, for each band, cosine and sine; the FFN has two hidden layers with sines of learned
    frequency; windows are exp(-α t), α going from one channel to the last so that the window has fallen to 0.01 at
    1.5 and at 0.3 of T. There are filters for any lag; T only says how lags are measured.

    Args:
      channels: number of filters.
      seq_len: T.
      features: number of features, odd.
      hidden: width of the hidden layers.
      frequency: of the sines at the start.
    """

    def __init__(
        self, channels: int, seq_len: int, features: int, hidden: int, frequency: float | Array, rngs: nnx.Rngs
    ) -> None:
        self.channels, self.seq_len, self.bands = channels, seq_len, (features - 1) // 2
        inner = uniform(1 / math.sqrt(hidden))
        self.first = Linear(features, hidden, uniform(1 / math.sqrt(features)), rngs=rngs)
        self.second = Linear(hidden, hidden, inner, rngs=rngs)
        self.last = Linear(hidden, channels, inner, bias=False, rngs=rngs)
        self.frequency = nnx.Param(jnp.full(hidden, frequency, jnp.float32), role="scale")

    def __call__(self, lags: int) -> Float[Array, "S channels"]:
        """The filters at lags 0, ..., S-1, float32."""
        lag = jnp.arange(lags, dtype=jnp.float32)[:, None]
        share = lag / max(self.seq_len - 1, 1)
        angle = 2 * math.pi / self.seq_len * lag * jnp.linspace(1e-4, max(self.bands - 1, 1e-4), self.bands)
        x = jnp.concatenate((share, jnp.cos(angle), -jnp.sin(angle)), 1)
        for layer in (self.first, self.second):
            x = jnp.sin(self.frequency[...] * layer(x))
        decay = -math.log(0.01) * jnp.linspace(1 / 1.5, 1 / 0.3, self.channels)
        return self.last(x) * jnp.exp(-decay * share)


class HyenaOperator(nnx.Module):
    """v ← x_n · (h_n * v) for n = 1, ..., N, with v, x_1, ..., x_N short convolutions of projections (algorithm 3).

    Each long convolution also has the input itself, times a learned number, as in the authors' code. That code leaves
    out the first of the N convolutions; here all are there, as in the paper.

    Args:
      width: D.
      order: N.
      taps: of the short convolution.
      seq_len, features, hidden, frequency: see `ImplicitFilter`.
      init, init_out: of the kernels; `init_out` writes into the residual stream.
      dtype: of the cache, the compute dtype.
    """

    def __init__(
        self,
        width: int,
        order: int,
        taps: int,
        init: Initializer,
        init_out: Initializer,
        *,
        seq_len: int,
        features: int,
        hidden: int,
        frequency: float | Array,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.width, self.order, self.dtype = width, order, dtype
        self.input = Linear(width, (order + 1) * width, init, rngs=rngs)
        self.short = DepthwiseConv((order + 1) * width, taps, rngs=rngs)
        self.filters = ImplicitFilter(order * width, seq_len, features, hidden, frequency, rngs)
        self.direct = nnx.Param(normal(1.0)(rngs.params(), (order, width)), role="scale")
        self.out = Linear(width, width, init_out, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: HyenaCache | None
    ) -> tuple[Float[Array, "B T D"], HyenaCache | None]:
        """As `stacked_lm.Mixer`."""
        projected, short = self.short(self.input(x), reading, None if cache is None else cache.short)
        v, *gates = jnp.split(projected, self.order + 1, -1)
        lags = x.shape[1] + (0 if cache is None else cache.long[0].shape[1])
        filters = jnp.split(self.filters(lags), self.order, -1)
        long = []
        for n, (gate, filter_) in enumerate(zip(gates, filters, strict=True)):
            window = None if cache is None else cache.long[n]
            y = _convolved(v, filter_, reading, window) + self.direct[n] * v.astype(jnp.float32)
            if window is not None:
                long.append(advanced(window, v, reading))
            v = gate * y.astype(x.dtype)
        return self.out(v), None if short is None else HyenaCache(short, tuple(long))

    def init_cache(self, batch: int, length: int) -> HyenaCache:
        """As `stacked_lm.Mixer`; it grows with `length`."""
        short = jnp.zeros((batch, self.short.taps - 1, (self.order + 1) * self.width), self.dtype)
        long = jnp.zeros((batch, max(length - 1, 0), self.width), self.dtype)
        return HyenaCache(short, (long,) * self.order)


def _convolved(
    v: Float[Array, "B T D"], filters: Float[Array, "S D"], reading: Reading, window: Window | None
) -> Float[Array, "B T D"]:
    """The long convolution of what was read before and `v`, at the places of `v`, float32."""
    if window is None:
        return long_convolution(v, filters, reading.segment_ids)
    whole = jnp.concatenate((window, v.astype(window.dtype)), 1)
    if v.shape[1] == 1:  # one more token: one sum instead of a transform
        return jnp.einsum("bsd,sd->bd", whole.astype(jnp.float32), filters[::-1])[:, None]
    return long_convolution(whole, filters)[:, window.shape[1] :]


@models.register("hyena")
class Hyena(StackedLM):
    """A pre-norm decoder as GPT-2's, with the Hyena operator for attention and no other positions.

    Capabilities: CausalLM.

    Packed documents are kept apart exactly (see `long_convolution`). A cache holds all inputs of the long convolutions,
    and reading one more token costs a sum over them: O(T) time and memory a token, as with attention.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row, T: the unit that filters measure lags in. Longer texts can be read.
      dtype: compute dtype; parameters, filters, long convolutions, norms and logits are float32.
      rngs: where initial values come from.
      width: D; 768 in the model with 125 million parameters.
      layers: number of blocks, L; 18 in that model.
      order: number of long convolutions and gates in an operator, N; 2 and 3 in the paper.
      taps: of the short convolutions.
      filter_features: features of a lag: odd, its share of T and pairs of waves.
      filter_hidden: width of the hidden layers of the filters' network.
      filter_frequency: of that network's sines at the start.
      mlp_ratio: width inside the feed-forward half, in multiples of D; 0 leaves that half out.
      activation: of the feed-forward half.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding and of what each half block adds, in [0, 1).
      init_std: standard deviation of initial weights outside the filters; that of products which write into the
        residual stream is divided by sqrt(2 L).
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = """
    hyena.width = 5
    hyena.layers = 2
    hyena.filter_features = 3
    hyena.filter_hidden = 7
    hyena.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 768,
        layers: Count = 18,
        order: Count = 2,
        taps: Count = 3,
        filter_features: Annotated[int, Within(at_least=3)] = 33,
        filter_hidden: Count = 64,
        filter_frequency: Positive = 10.0,
        mlp_ratio: NonNegative = 4.0,
        activation: Activation = "gelu",
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        if filter_features % 2 == 0:
            raise ConfigError(
                f"hyena.filter_features = {filter_features} must be odd: a share, and two waves for each band."
            )
        init, init_out = normal(init_std), normal(init_std / math.sqrt(2 * layers))

        def block(rngs: nnx.Rngs) -> Block:
            mixer = HyenaOperator(
                width, order, taps, init, init_out, seq_len=seq_len, features=filter_features, hidden=filter_hidden,
                frequency=filter_frequency, dtype=dtype, rngs=rngs,
            )  # fmt: skip
            inner = round(mlp_ratio * width)
            mlp = MLP(width, inner, activation, init, init_out, rngs=rngs) if inner else None
            return Block(dtype, lambda: LayerNorm(width), mixer, mlp, dropout)

        super().__init__(
            vocab, width, dtype, rngs, block, layers,
            norm=LayerNorm(width), init=init, dropout=dropout, scan=scan, remat=remat, tie_embeddings=tie_embeddings,
        )  # fmt: skip
