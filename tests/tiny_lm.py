"""A model, a loss and batches small enough to compile in a second, for tests of the step and of partitioners."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lmlab.contracts import LossOutput
from lmlab.nn.functional import ModelDef

V, T, D, H, L = 11, 7, 16, 24, 2


class Rate:
    """A number that may be a tracer: inside a plain object, nnx does not compare it."""

    def __init__(self, value):
        self.value = value


class TinyLM(nnx.Module):
    """Position-wise residual blocks, parameters stacked over layers, and per-row dropout."""

    def __init__(self, rngs: nnx.Rngs, dropout=0.25, dtype=jnp.float32):
        def normal(*shape, role="kernel"):
            return nnx.Param(jax.random.normal(rngs.params(), shape) * 0.3, role=role)

        self.embedding = normal(V, D, role="embedding")
        self.up = nnx.Dict(kernel=normal(L, D, H), bias=nnx.Param(jnp.zeros((L, H)), role="bias"))
        self.down = nnx.Dict(kernel=normal(L, H, D), bias=nnx.Param(jnp.zeros((L, D)), role="bias"))
        self.scale = nnx.Param(jnp.ones((D,)), role="scale")
        self.rate, self.dtype = Rate(dropout), dtype

    def logits(self, tokens, keys):
        x = self.embedding[...].astype(self.dtype)[tokens]
        for layer in range(L):
            h = jnp.tanh(x @ self.up["kernel"][layer].astype(x.dtype) + self.up["bias"][layer].astype(x.dtype))
            if keys is not None:
                keep = 1 - self.rate.value
                draw = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, layer), keep, (T, H)))  # noqa: B023
                h = jnp.where(draw(keys), h / keep, 0).astype(x.dtype)
            x = x + h @ self.down["kernel"][layer].astype(x.dtype) + self.down["bias"][layer].astype(x.dtype)
        x = x.astype(jnp.float32) * self.scale[...]
        return x @ self.embedding[...].T


class NextToken:
    """Cross-entropy sums."""

    def __call__(self, model, batch, keys, step):
        logp = jax.nn.log_softmax(model.logits(batch["tokens"], keys))
        nll = -jnp.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0]
        right = (logp.argmax(-1) == batch["targets"]) * batch["weights"]
        weight = batch["weights"].sum()
        return LossOutput((nll * batch["weights"]).sum(), weight, {"accuracy": (right.sum(), weight)})


def tiny_model(**options) -> ModelDef:
    return ModelDef.of(lambda rngs: TinyLM(rngs, **options))


def ragged_batches(steps: int, rows: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Batches whose rows have very different numbers of targets, the last rows the fewest."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(steps):
        tokens = rng.integers(0, V, (rows, T + 1), dtype=np.int32)
        lengths = np.sort(rng.integers(0, T + 1, rows))[::-1]
        weights = (np.arange(T) < lengths[:, None]).astype(np.float32)
        batches.append({"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights})
    return batches
