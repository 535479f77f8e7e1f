"""A causal language model around a stack of blocks: embedding, residual stream, norm, projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Initializer, Linear
from lmlab.nn.mlp import MLP
from lmlab.nn.norm import LayerNorm, RMSNorm
from lmlab.nn.positions import Positions
from lmlab.nn.reading import Reading, StackCache
from lmlab.nn.stack import Remat, make_stack, run_stack


class Mixer(Protocol):
    """What mixes the tokens of each row in one block, an nnx.Module."""

    def __call__(self, x: Float[Array, "B T D"], reading: Reading, cache: Any) -> tuple[Float[Array, "B T D"], Any]:
        """What is added to the residual stream, and what is kept if a cache was given (else None).

        Args:
          x: normalised, in the compute dtype.
          reading: which tokens belong together.
          cache: this block's own.
        """
        ...

    def init_cache(self, batch: int, length: int) -> Any:
        """What is kept before anything is read."""
        ...


class Block(nnx.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)): the residual stream itself is never normalised.

    Args:
      dtype: compute dtype.
      norm: makes one norm.
      mixer: mixes the tokens.
      mlp: None leaves the second half out.
      dropout: of what each half adds.
    """

    def __init__(
        self, dtype: Any, norm: Callable[[], LayerNorm | RMSNorm], mixer: Any, mlp: MLP | None, dropout: Rate
    ) -> None:
        self.dtype = dtype
        self.norm, self.mixer = norm(), mixer
        self.mlp_norm = None if mlp is None else norm()
        self.mlp = mlp
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: Any, keys: Key[Array, " B"] | None, layer: Array
    ) -> tuple[Float[Array, "B T D"], Any]:
        """The residual stream after the block, and what the mixer keeps; the embedding drops at site 0."""
        mixed, kept = self.mixer(self.norm(x).astype(self.dtype), reading, cache)
        x = x + self.dropout(mixed.astype(x.dtype), keys, 1 + 2 * layer)
        if self.mlp is not None and self.mlp_norm is not None:
            added = self.mlp(self.mlp_norm(x).astype(self.dtype))
            x = x + self.dropout(added.astype(x.dtype), keys, 2 + 2 * layer)
        return x, kept


class StackedLM(nnx.Module):
    """The half of a CausalLM that does not depend on how its blocks mix the tokens.

    Args:
      vocab: V.
      width: D.
      dtype: compute dtype.
      rngs: where initial values come from.
      block: makes one block.
      layers: L.
      norm: the last one.
      init: of the embedding, of the positions and of an untied projection.
      dropout: of the embedding.
      positions: number of learned positions to add to the embedding; None has none.
      tie_embeddings: project with the transposed embedding.
      residual_dtype: of the residual stream; the compute dtype by default.
      scan, remat: see `run_stack`.
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        dtype: Any,
        rngs: nnx.Rngs,
        block: Callable[[nnx.Rngs], Block],
        layers: int,
        *,
        norm: LayerNorm | RMSNorm,
        init: Initializer,
        dropout: Rate,
        scan: bool,
        remat: Remat,
        positions: int | None = None,
        tie_embeddings: bool = True,
        residual_dtype: Any = None,
    ) -> None:
        self.dtype, self.residual_dtype = dtype, residual_dtype or dtype
        self.layers, self.scan, self.remat = layers, scan, remat
        self.embedding = Embedding(vocab, width, init, rngs=rngs)
        kind: Literal["none", "learned"] = "none" if positions is None else "learned"
        self.positions = Positions(kind, init, width=width, heads=1, head_width=1, length=positions or 0, rngs=rngs)
        self.dropout = Dropout(dropout)
        self.blocks = make_stack(block, layers, rngs)
        self.norm = norm
        self.head = None if tie_embeddings else Linear(width, vocab, init, bias=False, rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: StackCache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], StackCache | None]:
        """States after reading each token, normalised, and the cache if one was given.

        Without a cache, tokens depend on their own segment only (0 is padding). With one, the tokens continue what each
        row has read, and `segment_ids` says which of them are there: those with 0 must stand at the end of their row,
        are not read, and their states mean nothing.

        Args:
          tokens: ids.
          positions: each token's place in its document (by default, counted on from the start or the cache).
          segment_ids: the document of each token.
          cache: what was read before.
          keys: one for each row; switches dropout on.
        """
        reading = Reading.of(tokens, positions, segment_ids, None if cache is None else cache.length)
        x = self.embedding(tokens, self.residual_dtype)
        x = self.positions.add(x, reading.positions, None)

        def body(block: Block, x: Array, at: tuple[Array, Any]) -> tuple[Array, Any]:
            layer, kept = at
            return block(by_rows(x), reading, kept, keys, layer)

        kept = None if cache is None else cache.layers
        x, kept = run_stack(self.blocks, body, self.dropout(x, keys, 0), kept, scan=self.scan, remat=self.remat)
        states = self.norm(x).astype(self.dtype)
        return states, None if cache is None else StackCache(kept, cache.length + reading.counts)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> StackCache:
        """What `batch` rows have read that have read nothing yet, and will read at most `length` tokens.

        Raises:
          ConfigError: there is no learned position for that many tokens.
        """
        limit = self.positions.limit
        if limit is not None and length > limit:
            raise ConfigError(
                f"a model with learned positions reads at most experiment.seq_len = {limit} tokens, not {length}. "
                "Ask for fewer, or train with a greater seq_len."
            )
        one = self.blocks.mixer.init_cache(batch, length)
        layers = jax.tree.map(lambda leaf: jnp.zeros((self.layers, *leaf.shape), leaf.dtype), one)
        return StackCache(layers, jnp.zeros(batch, jnp.int32))
