"""The LSTM training step written by hand in JAX, as fast as is known for CPU: what `lmlab bench` compares lmlab with.

The input's share of the gates is one product for all steps. The recurrence has a gradient by hand: it keeps the gates'
gradients of all steps and forms the recurrent kernel's by one product after the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Params = dict[str, Any]


def init(key: Array, vocab: int, width: int, layers: int) -> Params:
    """Uniform in [-0.05, 0.05], forget gates open."""
    keys = iter(jax.random.split(key, 2 + 2 * layers))

    def uniform(*shape: int) -> Array:
        return jax.random.uniform(next(keys), shape, minval=-0.05, maxval=0.05)

    bias = jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), width)
    return {
        "embedding": uniform(vocab, width),
        "layers": [
            {"input": uniform(width, 4 * width), "bias": bias, "recurrent": uniform(width, 4 * width)}
            for _ in range(layers)
        ],
        "head": (uniform(width, vocab), jnp.zeros(vocab)),
    }


@jax.custom_vjp
def recurrence(inputs: Array, kernel: Array) -> Array:
    """Outputs (T, B, D) from the inputs' share of the gates (T, B, 4*D), in PyTorch's order i, f, g, o."""
    return forward(inputs, kernel)[0]


def forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, ...]]:
    def step(state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        h, c = state
        i, f, g, o = jnp.split(x + h @ kernel, 4, -1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (jnp.concatenate((i, f, g, o), -1), h, c)

    zeros = jnp.zeros((inputs.shape[1], kernel.shape[0]))
    _, (gates, h, c) = jax.lax.scan(step, (zeros, zeros), inputs)
    return h, (kernel, gates, h, c)


def backward(saved: tuple[Array, ...], d_outputs: Array) -> tuple[Array, Array]:
    kernel, gates, h, c = saved
    transposed = kernel.T
    h_before, c_before = (jnp.concatenate((jnp.zeros_like(x[:1]), x[:-1])) for x in (h, c))

    # What does not depend on other steps is formed for all of them before the loop.
    i, f, g, o = jnp.split(gates, 4, -1)
    squashed = jnp.tanh(c)
    of_cell = o * (1 - squashed * squashed)
    of_gates = jnp.concatenate((g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)), -1)

    def step(after: tuple[Array, Array], xs: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        dh, dc = after
        dy, f, of_cell, of_gates = xs
        dh = dh + dy
        dc = dc + dh * of_cell
        d_gates = of_gates * jnp.concatenate((dc, dc, dc, dh), -1)
        return (d_gates @ transposed, dc * f), d_gates

    zeros = jnp.zeros_like(h[0])
    _, d_gates = jax.lax.scan(step, (zeros, zeros), (d_outputs, f, of_cell, of_gates), reverse=True)
    width = kernel.shape[0]
    return d_gates, h_before.reshape(-1, width).T @ d_gates.reshape(-1, 4 * width)


recurrence.defvjp(forward, backward)


def loss_of(params: Params, tokens: Array, targets: Array) -> Array:
    """Mean next-token cross-entropy in nats."""
    batch, time = tokens.shape
    x = params["embedding"][tokens.T.reshape(-1)]
    for layer in params["layers"]:
        inputs = x @ layer["input"] + layer["bias"]
        x = recurrence(inputs.reshape(time, batch, -1), layer["recurrent"]).reshape(time * batch, -1)
    logits = x @ params["head"][0] + params["head"][1]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets.T.reshape(-1)).mean()


def make(
    *, vocab: int, width: int, layers: int, heads: int, seq_len: int, batch: int, learning_rate: float
) -> tuple[Any, Callable[..., Any]]:
    """A training state and `step(state, tokens, targets) -> (state, loss)`, tokens (B, T) int32; donates the state."""
    params = jax.jit(init, static_argnums=(1, 2, 3))(jax.random.key(0), vocab, width, layers)
    adamw = optax.adamw(
        learning_rate, b1=0.9, b2=0.95, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim == 2, p)
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw)

    def step(state: Any, tokens: Array, targets: Array) -> tuple[Any, Array]:
        params, opt_state = state
        loss, gradient = jax.value_and_grad(loss_of)(params, tokens, targets)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return (params, jax.jit(optimizer.init)(params)), jax.jit(
        step, donate_argnums=0, compiler_options=compiler_options()
    )


def compiler_options() -> dict[str, str] | None:
    """On a CPU, products by Eigen, which is faster there than XLA's default, YNN."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def sync(loss: Any) -> float:
    """The loss as a number, once the step is done."""
    return float(np.asarray(loss))
