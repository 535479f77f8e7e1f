"""The GPT training step written by hand in JAX, as fast as is known for CPU: what `lmlab bench` compares lmlab with.

Tokens stand flattened as (B*T, D) and heads as (B*H, T, K), so that every product is one plain matrix product or has
one batch axis. Layers run under `lax.scan` and keep for the backward pass what it costs most to compute again.
Attention goes by blocks of queries, skips the blocks above the diagonal, and keeps no (T, T) matrix.
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
from jax.ad_checkpoint import checkpoint_name

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


def blocks(time: int) -> list[tuple[int, int]]:
    """Where each block of queries starts and ends."""
    return [(start, min(start + 128, time)) for start in range(0, time, 128)]


def visible(start: int, end: int) -> Array:
    return jnp.arange(end) <= jnp.arange(start, end)[:, None]


@jax.custom_vjp
def attention(q: Array, k: Array, v: Array) -> Array:
    """Causal attention, (B*H, T, K) each."""
    return attention_forward(q, k, v)[0]


def attention_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    outputs, normalisers = [], []
    for start, end in blocks(q.shape[1]):
        scores = jnp.einsum("ntk,nsk->nts", q[:, start:end], k[:, :end]) / math.sqrt(q.shape[2])
        scores = jnp.where(visible(start, end), scores, -1e30)
        top = scores.max(-1, keepdims=True)
        shares = jnp.exp(scores - top)
        total = shares.sum(-1, keepdims=True)
        outputs.append(jnp.einsum("nts,nsk->ntk", shares, v[:, :end]) / total)
        normalisers.append((top + jnp.log(total))[..., 0])
    output = checkpoint_name(jnp.concatenate(outputs, 1), "kept")
    return output, (q, k, v, output, checkpoint_name(jnp.concatenate(normalisers, 1), "kept"))


def attention_backward(saved: tuple[Array, ...], d_output: Array) -> tuple[Array, Array, Array]:
    q, k, v, output, normaliser = saved
    time, scale = q.shape[1], 1 / math.sqrt(q.shape[2])
    mean = (d_output * output).sum(-1)
    d_q, d_k, d_v = [], jnp.zeros_like(k), jnp.zeros_like(v)
    for start, end in blocks(time):
        queries, d_out = q[:, start:end], d_output[:, start:end]
        # Keys before queries: then only one of the three products below contracts a first axis, which is slow.
        scores = jnp.einsum("nsk,ntk->nst", k[:, :end], queries) * scale
        shares = jnp.where(visible(start, end).T, jnp.exp(scores - normaliser[:, None, start:end]), 0)
        d_shares = jnp.einsum("nsk,ntk->nst", v[:, :end], d_out)
        d_scores = shares * (d_shares - mean[:, None, start:end]) * scale
        beyond = ((0, 0), (0, time - end), (0, 0))
        d_v += jnp.pad(jnp.einsum("nst,ntk->nsk", shares, d_out), beyond)
        d_k += jnp.pad(jnp.einsum("nst,ntk->nsk", d_scores, queries), beyond)
        d_q.append(jnp.einsum("nst,nsk->ntk", d_scores, k[:, :end]))
    return jnp.concatenate(d_q, 1), d_k, d_v


attention.defvjp(attention_forward, attention_backward)


def self_attention(x: Array, p: Params, batch: int, heads: int) -> Array:
    """(B*T, D) to (B*T, D). Three products: to take the result of one apart costs more than they do."""
    tokens, width = x.shape

    def split(kernel: Array, bias: Array) -> Array:
        y = linear(x, (kernel, bias)).reshape(batch, -1, heads, width // heads)
        return checkpoint_name(y.swapaxes(1, 2).reshape(batch * heads, -1, width // heads), "kept")

    q, k, v = (split(*part) for part in zip(*(jnp.split(weights, 3, -1) for weights in p["qkv"]), strict=True))
    mixed = attention(q, k, v).reshape(batch, heads, -1, width // heads).swapaxes(1, 2)
    return linear(mixed.reshape(tokens, width), p["out"])


def loss_of(params: Params, tokens: Array, targets: Array, heads: int) -> Array:
    """Mean next-token cross-entropy in nats."""
    batch, time = tokens.shape
    x = (params["embedding"][tokens] + params["positions"][:time]).reshape(batch * time, -1)

    def block(x: Array, p: Params) -> tuple[Array, None]:
        x = checkpoint_name(x + self_attention(layer_norm(x, p["norm1"]), p, batch, heads), "kept")
        inner = checkpoint_name(linear(layer_norm(x, p["norm2"]), p["up"]), "kept")
        return x + linear(jax.nn.gelu(inner), p["down"]), None

    kept = jax.checkpoint_policies.save_only_these_names("kept")
    x, _ = jax.lax.scan(jax.checkpoint(block, policy=kept, prevent_cse=False), x, params["blocks"])
    logits = layer_norm(x, params["norm"]) @ params["embedding"].T
    # A masked sum, not take_along_axis, whose gradient is a scatter.
    at_target = jnp.where(jnp.arange(logits.shape[1]) == targets.reshape(-1, 1), logits, 0).sum(-1)
    return (jax.nn.logsumexp(logits, -1) - at_target).mean()


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

    compiled = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
    return (params, jax.jit(optimizer.init)(params)), compiled


def compiler_options() -> dict[str, str] | None:
    """On a CPU, products by Eigen, which is faster there than XLA's default, YNN."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def sync(loss: Any) -> float:
    """The loss as a number, once the step is done."""
    return float(np.asarray(loss))
