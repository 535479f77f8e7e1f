"""The selective scan of state space models (Gu & Dao 2023, arXiv:2312.00752, algorithm 2 and section 3.3).

h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t and y_t = C_t · h_t, for each channel with a state of N numbers. Compositions of
such steps are such steps again, so that a chunk of time is scanned in a logarithmic number of parallel ones. Of the
states, (T, E, N) in all, only those between chunks are kept for the backward pass, and a chunk's own while it is
worked on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from lmlab.nn.layout import known

_Step = tuple[Array, Array]


def selective_scan(
    u: Float[Array, "B T E"],
    delta: Float[Array, "B T E"],
    a: Float[Array, "E N"],
    b: Float[Array, "B T N"],
    c: Float[Array, "B T N"],
    state: Float[Array, "B E N"],
    starts: Bool[Array, "B T"] | None = None,
    *,
    chunk: int,
) -> tuple[Float[Array, "B T E"], Float[Array, "B E N"]]:
    """The outputs of all steps and the last state; everything is float32.

    Args:
      u: inputs.
      delta: length of each step, above 0; where it is 0, the state stays as it is.
      a: below 0: what the state decays by.
      b, c: how the input is written to the state, and how the state is read.
      state: before the first step.
      starts: where a document begins: the state is zero before the step.
      chunk: steps that are scanned in parallel.
    """
    time = u.shape[1]
    chunk = min(chunk, time) if known(time) else chunk

    def body(state: Array, xs: tuple[Array, ...]) -> tuple[Array, Array]:
        return _scan_chunk(a, state, *xs)

    inputs = (u, delta, b, c) if starts is None else (u, delta, b, c, starts)
    # Steps that fill up the last chunk have length 0.
    pieces = tuple(_chunks(x, chunk) for x in inputs)
    state, y = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), state, pieces)
    return y.swapaxes(0, 1).reshape(u.shape[0], -1, u.shape[2])[:, :time], state


def _scan_chunk(
    a: Array, state: Array, u: Array, delta: Array, b: Array, c: Array, starts: Array | None = None
) -> tuple[Array, Array]:
    """One chunk: the state after it, and its outputs."""
    decay = jnp.exp(delta[..., None] * a)
    if starts is not None:
        decay = jnp.where(starts[..., None, None], 0, decay)
    written = (delta * u)[..., None] * b[:, :, None]
    states = _states(decay, written, state)
    return states[:, -1], (states * c[:, :, None]).sum(-1)


@jax.custom_vjp
def _states(
    decay: Float[Array, "B c E N"], written: Float[Array, "B c E N"], state: Float[Array, "B E N"]
) -> Float[Array, "B c E N"]:
    """h_t = decay_t h_{t-1} + written_t; its gradient is such a recurrence too, from the end to the beginning."""
    kept, added = jax.lax.associative_scan(_then, (decay, written), axis=1)
    return kept * state[:, None] + added


def _forward(decay: Array, written: Array, state: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    states = _states(decay, written, state)
    return states, (decay, state, states)


def _backward(saved: tuple[Array, Array, Array], slopes: Array) -> tuple[Array, Array, Array]:
    decay, state, states = saved
    following = jnp.concatenate((decay[:, 1:], jnp.zeros_like(decay[:, :1])), 1)
    _, of_written = jax.lax.associative_scan(_then, (following, slopes), axis=1, reverse=True)
    before = jnp.concatenate((state[:, None], states[:, :-1]), 1)
    return of_written * before, of_written, decay[:, 0] * of_written[:, 0]


_states.defvjp(_forward, _backward)


def _then(first: _Step, second: _Step) -> _Step:
    """h -> k₂ (k₁ h + a₁) + a₂."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _chunks(x: Array, chunk: int) -> Array:
    """(B, T, ...) as (ceil(T / chunk), B, chunk, ...), padded with zeros."""
    count = -(-x.shape[1] // chunk)
    x = jnp.pad(x, [(0, 0), (0, count * chunk - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], count, chunk, *x.shape[2:]).swapaxes(0, 1)
