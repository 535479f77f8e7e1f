"""Mamba (Gu & Dao 2023, arXiv:2312.00752): a selective state space model in the place of attention and MLP."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from lmlab.nn.convolution import DepthwiseConv
from lmlab.nn.linear import Linear, normal, uniform
from lmlab.nn.norm import RMSNorm
from lmlab.nn.reading import Reading
from lmlab.nn.selective_scan import selective_scan
from lmlab.nn.stack import KEPT, Remat
from lmlab.nn.stacked_lm import Block, StackedLM
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models


class MambaCache(NamedTuple):
    """What one block keeps, the same size however much it has read.

    Attributes:
      window: the last inputs of the short convolution, in the compute dtype.
      state: of the state space, float32.
    """

    window: Float[Array, "B taps-1 E"]
    state: Float[Array, "B E N"]


class SelectiveSSM(nnx.Module):
    """S6 (section 3): step length, input and output matrices are functions of the token.

    Args:
      inner: number of channels, E.
      state: numbers that each channel remembers, N.
      rank: of the product that makes the step lengths.
      delta_min, delta_max: bounds of the step lengths at the start, which are log-uniform between them.
      delta_floor: what they are at least.
      chunk: see `selective_scan`.
    """

    def __init__(
        self,
        inner: int,
        state: int,
        rank: int,
        *,
        delta_min: float | Array,
        delta_max: float | Array,
        delta_floor: float | Array,
        chunk: int,
        rngs: nnx.Rngs,
    ) -> None:
        self.state, self.rank, self.chunk = state, rank, chunk
        self.select = Linear(inner, rank + 2 * state, uniform(1 / math.sqrt(inner)), bias=False, rngs=rngs)
        self.step = Linear(rank, inner, uniform(1 / math.sqrt(rank)), bias=False, rngs=rngs)
        low, high = jnp.log(delta_min), jnp.log(delta_max)
        delta = jnp.exp(low + (high - low) * jax.random.uniform(rngs.params(), (inner,)))
        delta = jnp.maximum(delta, delta_floor)
        self.step_bias = nnx.Param(delta + jnp.log(-jnp.expm1(-delta)), role="bias")  # the inverse of softplus
        # S4D-Real: A is -1, ..., -N in every channel. As a logarithm it stays below zero.
        self.log_decay = nnx.Param(jnp.tile(jnp.log(jnp.arange(1.0, state + 1)), (inner, 1)), role="scale")
        self.skip = nnx.Param(jnp.ones(inner), role="scale")

    def __call__(
        self, u: Float[Array, "B T E"], reading: Reading, state: Float[Array, "B E N"] | None
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B E N"]]:
        """Outputs in float32, and the last state. The recurrence and all that steers it are float32."""
        steering = self.select(u)
        rank, b, c = jnp.split(steering, (self.rank, self.rank + self.state), -1)
        b, c, wide = (x.astype(jnp.float32) for x in (b, c, u))
        delta = jax.nn.softplus(self.step(rank).astype(jnp.float32) + self.step_bias[...])
        if state is None:
            state = jnp.zeros((u.shape[0], u.shape[2], self.state))
        a = -jnp.exp(self.log_decay[...])
        y, state = selective_scan(wide, reading.masked(delta), a, b, c, state, reading.starts, chunk=self.chunk)
        return y + self.skip[...] * wide, state


class MambaMixer(nnx.Module):
    """out(SSM(silu(conv(in(x)))) · silu(gate)) (section 3.4, figure 3).

    Args:
      width: D.
      inner: E.
      taps: of the short convolution.
      dtype: compute dtype.
      layers: L; the kernel that writes into the residual stream starts smaller by sqrt(L).
      rngs: where initial values come from.
      given: the other arguments of `SelectiveSSM`.
    """

    def __init__(
        self, width: int, inner: int, taps: int, dtype: Any, layers: int, rngs: nnx.Rngs, **given: Any
    ) -> None:
        self.dtype, self.inner = dtype, inner
        self.input = Linear(width, 2 * inner, uniform(1 / math.sqrt(width)), bias=False, rngs=rngs)
        self.conv = DepthwiseConv(inner, taps, rngs=rngs)
        self.ssm = SelectiveSSM(inner, rngs=rngs, **given)
        self.out = Linear(inner, width, uniform(1 / math.sqrt(inner * layers)), bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: MambaCache | None
    ) -> tuple[Float[Array, "B T D"], MambaCache | None]:
        """As `stacked_lm.Mixer`."""
        u, gate = jnp.split(self.input(x), 2, -1)
        u, window = self.conv(u, reading, None if cache is None else cache.window)
        y, state = self.ssm(jax.nn.silu(u), reading, None if cache is None else cache.state)
        y = checkpoint_name(y.astype(self.dtype), KEPT) * jax.nn.silu(gate)
        return self.out(y), None if window is None else MambaCache(window, state)

    def init_cache(self, batch: int, length: int) -> MambaCache:
        """As `stacked_lm.Mixer`; of one size, whatever `length` is."""
        window = jnp.zeros((batch, self.conv.taps - 1, self.inner), self.dtype)
        return MambaCache(window, jnp.zeros((batch, self.inner, self.ssm.state)))


def _norm(width: int) -> RMSNorm:
    return RMSNorm(width, epsilon=1e-5)  # as in the authors' models


@models.register("mamba")
class Mamba(StackedLM):
    """Mamba with the authors' defaults and initialisation; it reads texts of any length with a memory of one size.

    Capabilities: CausalLM.

    The vocabulary is not rounded up to a multiple of 8. A, D and the bias of the step lengths have roles (scale, bias)
    that optimizers do not decay, as the authors do.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype; parameters, the residual stream, the recurrence, norms and logits are float32.
      rngs: where initial values come from.
      width: D; 768 in the model with 130 million parameters.
      layers: number of blocks, L; 24 in that model.
      expand: channels of the state space, in multiples of D: E.
      state: numbers that each channel remembers, N.
      taps: of the short convolution.
      rank: of the product that makes the step lengths; None is D / 16, rounded up.
      delta_min: least step length at the start.
      delta_max: greatest step length at the start; they are log-uniform between the two.
      delta_floor: what step lengths are at least at the start.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding and of what each block adds, in [0, 1); the authors
        have none.
      init_std: standard deviation of the initial embedding. Kernels are uniform in ±1/sqrt(inputs), and those that
        write into the residual stream smaller by sqrt(L).
      chunk: tokens that are scanned in parallel: memory for states is (B, chunk, E, N). The numbers are the same.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters and the
        scan's outputs) or `full`. States inside a chunk are computed again by all three.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"chunk", "scan", "remat"})
    TINY: ClassVar[str] = (
        "mamba.width = 11\nmamba.layers = 2\nmamba.state = 3\nmamba.rank = 2\nmamba.chunk = 3\nmamba.dropout = 0.25"
    )

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 768,
        layers: Count = 24,
        expand: Count = 2,
        state: Count = 16,
        taps: Count = 4,
        rank: Count | None = None,
        delta_min: Positive = 0.001,
        delta_max: Positive = 0.1,
        delta_floor: NonNegative = 1e-4,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        chunk: Count = 64,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        def block(rngs: nnx.Rngs) -> Block:
            mixer = MambaMixer(
                width, expand * width, taps, dtype, layers, rngs,
                state=state, rank=rank or math.ceil(width / 16), delta_min=delta_min, delta_max=delta_max,
                delta_floor=delta_floor, chunk=chunk,
            )  # fmt: skip
            return Block(dtype, lambda: _norm(width), mixer, None, dropout)

        super().__init__(
            vocab, width, dtype, rngs, block, layers,
            norm=_norm(width), init=normal(init_std), dropout=dropout, scan=scan, remat=remat,
            tie_embeddings=tie_embeddings, residual_dtype=jnp.float32,
        )  # fmt: skip
