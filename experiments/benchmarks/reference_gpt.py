"""The GPT training step written by hand in JAX, as fast as is known for CPU: what `lmlab bench` compares lmlab with.

Tokens stand flattened as (B*T, D) and heads as (B*H, T, K), so that every product is one plain matrix product or has
one batch axis; layers run under `lax.scan` and keep only the results of products for the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Params = dict[str, Any]


def init(key: Array, vocab: int, width: int, layers: int, seq_len: int) -> Params:
    """GPT-2's initialisation; the blocks' parameters have a leading axis L."""
    keys = iter(jax.random.split(key, 6))
    residual = 0.02 / math.sqrt(2 * layers)
    D, L = width, layers

    def normal(std: float, *shape: int) -> Array:
        return std * jax.random.normal(next(keys), shape)

    return {
        "embedding": normal(0.02, vocab, D),
        "positions": normal(0.02, seq_len, D),
        "blocks": {
            "norm1": (jnp.ones((L, D)), jnp.zeros((L, D))),
            "qkv": (normal(0.02, L, D, 3 * D), jnp.zeros((L, 3 * D))),
            "out": (normal(residual, L, D, D), jnp.zeros((L, D))),
            "norm2": (jnp.ones((L, D)), jnp.zeros((L, D))),
            "up": (normal(0.02, L, D, 4 * D), jnp.zeros((L, 4 * D))),
            "down": (normal(residual, L, 4 * D, D), jnp.zeros((L, D))),
        },
        "norm": (jnp.ones(D), jnp.zeros(D)),
    }


def layer_norm(x: Array, weights: tuple[Array, Array]) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean * mean
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weights[0] + weights[1]


def linear(x: Array, weights: tuple[Array, Array]) -> Array:
    return x @ weights[0] + weights[1]


def attention(qkv: Array, batch: int, time: int, heads: int) -> Array:
    """Causal attention; qkv (B*T, 3*D) to (B*T, D)."""
    head_width = qkv.shape[-1] // (3 * heads)
    split = qkv.reshape(batch, time, 3, heads, head_width).transpose(2, 0, 3, 1, 4)
    q, k, v = split.reshape(3, batch * heads, time, head_width)
    scores = jnp.einsum("btk,bsk->bts", q, k) / math.sqrt(head_width)
    visible = jnp.tril(jnp.ones((time, time), bool))
    shares = jax.nn.softmax(jnp.where(visible, scores, -1e30))
    mixed = jnp.einsum("bts,bsk->btk", shares, v)
    return mixed.reshape(batch, heads, time, head_width).transpose(0, 2, 1, 3).reshape(batch * time, -1)


def loss_of(params: Params, tokens: Array, targets: Array, heads: int) -> Array:
    """Mean next-token cross-entropy in nats."""
    batch, time = tokens.shape
    x = (params["embedding"][tokens] + params["positions"][:time]).reshape(batch * time, -1)

    def block(x: Array, p: Params) -> tuple[Array, None]:
        mixed = attention(linear(layer_norm(x, p["norm1"]), p["qkv"]), batch, time, heads)
        x = x + linear(mixed, p["out"])
        return x + linear(jax.nn.gelu(linear(layer_norm(x, p["norm2"]), p["up"])), p["down"]), None

    x, _ = jax.lax.scan(jax.checkpoint(block, policy=jax.checkpoint_policies.dots_saveable), x, params["blocks"])
    logits = layer_norm(x, params["norm"]) @ params["embedding"].T
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets.reshape(-1)).mean()


def make(
    *, vocab: int, width: int, layers: int, heads: int, seq_len: int, batch: int, learning_rate: float
) -> tuple[Any, Callable[..., Any]]:
    """A training state and `step(state, tokens, targets) -> (state, loss)`, tokens (B, T) int32; donates the state."""
    params = jax.jit(init, static_argnums=(1, 2, 3, 4))(jax.random.key(0), vocab, width, layers, seq_len)

    def decayed(params: Params) -> Params:
        matrices = dict.fromkeys(("qkv", "out", "up", "down"), (True, False))
        blocks = {name: matrices.get(name, (False, False)) for name in params["blocks"]}
        return {"embedding": True, "positions": True, "blocks": blocks, "norm": (False, False)}

    adamw = optax.adamw(learning_rate, b1=0.9, b2=0.95, weight_decay=0.1, mask=decayed)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw)

    def step(state: Any, tokens: Array, targets: Array) -> tuple[Any, Array]:
        params, opt_state = state
        loss, gradient = jax.value_and_grad(loss_of)(params, tokens, targets, heads)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    compiled = jax.jit(step, donate_argnums=0)
    return (params, jax.jit(optimizer.init)(params)), compiled


def sync(loss: Any) -> float:
    """The loss as a number, once the step is done."""
    return float(np.asarray(loss))
