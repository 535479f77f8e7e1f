"""The temporal convolutional network (Bai, Kolter & Koltun 2018, arXiv:1803.01271)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.convolution import Window, advanced, lags
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Initializer, Linear, normal
from lmlab.nn.reading import Reading, StackCache
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models

Cache = StackCache
"""Its layers are a pair of windows for each block: the (taps-1)·dilation inputs that each convolution still needs."""


class DilatedConv(nnx.Module):
    """A causal convolution whose taps stand `dilation` tokens apart, with weight norm (arXiv:1602.07868).

    The kernel (taps·inputs, outputs), the oldest tap first, is a direction for each output; `scale` is its length, and
    starts as what it is.

    Args:
      inputs, outputs: channels.
      taps: inputs that an output depends on.
      dilation: tokens from one tap to the next.
      init: of the kernel.
    """

    def __init__(
        self, inputs: int, outputs: int, taps: int, dilation: int, init: Initializer, *, rngs: nnx.Rngs
    ) -> None:
        self.taps, self.dilation, self.inputs = taps, dilation, inputs
        kernel = init(rngs.params(), (taps * inputs, outputs), jnp.float32)
        self.kernel = nnx.Param(kernel, role="kernel")
        self.scale = nnx.Param(jnp.sqrt((kernel**2).sum(0)), role="scale")
        self.bias = nnx.Param(jnp.zeros(outputs), role="bias")

    def __call__(
        self, x: Float[Array, "B T inputs"], reading: Reading, window: Window | None
    ) -> tuple[Float[Array, "B T outputs"], Window | None]:
        """The convolution, and the window after it if one was given."""
        kernel = self.kernel[...]
        kernel = kernel * (self.scale[...] * jax.lax.rsqrt((kernel**2).sum(0) + 1e-12))
        taps = jnp.concatenate(lags(x, self.taps, reading, window, self.dilation), -1)
        y = taps @ kernel.astype(x.dtype) + self.bias[...].astype(x.dtype)
        return y, None if window is None else advanced(window, x, reading)

    def window(self, batch: int, dtype: Any) -> Window:
        """What is kept before anything is read."""
        return jnp.zeros((batch, (self.taps - 1) * self.dilation, self.inputs), dtype)


class Windows(NamedTuple):
    """What the two convolutions of a block keep."""

    first: Window
    second: Window


class Block(nnx.Module):
    """relu(x + F(x)), F being two times convolution, relu and dropout of whole channels (section 3.3, figure 1b).

    Args:
      inputs, outputs: channels; where they differ, x goes through a product of its own.
      taps, dilation: of both convolutions.
      init: of all kernels.
      dropout: probability of zeroing a channel of a row.
    """

    def __init__(
        self, inputs: int, outputs: int, taps: int, dilation: int, init: Initializer, dropout: Rate, rngs: nnx.Rngs
    ) -> None:
        self.first = DilatedConv(inputs, outputs, taps, dilation, init, rngs=rngs)
        self.second = DilatedConv(outputs, outputs, taps, dilation, init, rngs=rngs)
        self.shortcut = None if inputs == outputs else Linear(inputs, outputs, init, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: Windows | None, keys: Array | None, site: int
    ) -> tuple[Float[Array, "B T D"], Windows | None]:
        """The block's output, and its windows if they were given."""
        first, second = (None, None) if cache is None else cache
        y, first = self.first(x, reading, first)
        y = self._drop(jax.nn.relu(y), keys, site)
        y, second = self.second(y, reading, second)
        y = self._drop(jax.nn.relu(y), keys, site + 1)
        y = jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
        return y, None if first is None or second is None else Windows(first, second)

    def _drop(self, x: Float[Array, "B T D"], keys: Array | None, site: int) -> Float[Array, "B T D"]:
        return x * self.dropout(jnp.ones((x.shape[0], 1, x.shape[2]), x.dtype), keys, site)


@models.register("tcn")
class TCN(nnx.Module):
    """Residual blocks of dilated causal convolutions; the dilation doubles from block to block.

    Capabilities: CausalLM.

    A state depends on the last 1 + 2 (taps-1) (2^L - 1) tokens. Blocks differ in their dilation, so that each is
    compiled on its own. The defaults are those of the authors' word-level model of the Penn treebank.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype; parameters and logits are float32.
      rngs: where initial values come from.
      width: channels of every block, D.
      layers: number of blocks, L.
      taps: of every convolution.
      embedding_width: width of the embedding; None is D. Where it differs, the first block's shortcut is a product.
      tie_embeddings: project with the transposed embedding, which must then have width D.
      dropout: probability of zeroing a channel of a row behind each convolution, in [0, 1).
      embedding_dropout: probability of zeroing an entry of the embedding, in [0, 1).
      init_std: standard deviation of all initial weights.
      remat: what the backward pass computes again: `none`, or each block whole (`full`).
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"remat"})
    TINY: ClassVar[str] = """
    tcn.width = 11
    tcn.layers = 2
    tcn.taps = 2
    tcn.embedding_width = 5
    tcn.tie_embeddings = False
    tcn.dropout = 0.25
    tcn.embedding_dropout = 0.125
    tcn.init_std = 0.1
    """

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 600,
        layers: Count = 4,
        taps: Count = 3,
        embedding_width: Count | None = None,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.45,
        embedding_dropout: ProperFraction = 0.25,
        init_std: NonNegative = 0.01,
        remat: Literal["none", "full"] = "none",
    ) -> None:
        inputs = embedding_width or width
        if tie_embeddings and inputs != width:
            raise ConfigError(
                f"tcn.tie_embeddings needs an embedding of width tcn.width = {width}, "
                f"not tcn.embedding_width = {inputs}. Leave embedding_width out, or set tie_embeddings = False."
            )
        init = normal(init_std)
        self.dtype, self.remat = dtype, remat
        self.embedding = Embedding(vocab, inputs, init, rngs=rngs)
        self.embedding_dropout = Dropout(embedding_dropout)
        self.blocks = nnx.List(
            Block(inputs if layer == 0 else width, width, taps, 2**layer, init, dropout, rngs)
            for layer in range(layers)
        )
        self.head = None if tie_embeddings else Linear(width, vocab, init, rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """States after reading each token, and the cache if one was given.

        Without a cache, tokens depend on their own segment only (0 is padding). With one, the tokens continue what each
        row has read, and `segment_ids` says which of them are there: those with 0 are not read.

        Args:
          tokens: ids.
          positions: not used: convolutions know the distance.
          segment_ids: the document of each token.
          cache: the last inputs of every convolution.
          keys: one for each row; switches dropout on.
        """
        reading = Reading.of(tokens, positions, segment_ids, None if cache is None else cache.length)
        x = self.embedding_dropout(self.embedding(tokens, self.dtype), keys, 0)
        windows = []
        for number, block in enumerate(self.blocks):
            graphdef, state = nnx.split(block)

            def run(
                state: Any, x: Array, own: Any, graphdef: Any = graphdef, site: int = 1 + 2 * number
            ) -> tuple[Array, Any]:
                return nnx.merge(graphdef, state)(by_rows(x), reading, own, keys, site)

            run_block = jax.checkpoint(run) if self.remat == "full" else run
            x, kept = run_block(state, x, None if cache is None else cache.layers[number])
            windows.append(kept)
        return x, None if cache is None else StackCache(tuple(windows), cache.length + reading.counts)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> Cache:
        """Empty windows; they have the same size whatever `length` is."""
        windows = (
            Windows(block.first.window(batch, self.dtype), block.second.window(batch, self.dtype))
            for block in self.blocks
        )
        return StackCache(tuple(windows), jnp.zeros(batch, jnp.int32))
