"""The LSTM's recurrence over time (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

The input's share of the gates does not depend on the state, so that the caller forms it for all steps by one product.
What is left in the loop is one small product a step. Its gradient keeps the gates' gradients of all steps and forms
the recurrent kernel's by one product after the loop; automatic differentiation would add up T outer products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


class LSTMState(NamedTuple):
    """What an LSTM layer remembers: its output and its cell, both float32; (L, B, D) for all layers."""

    h: Float[Array, "B D"]
    c: Float[Array, "B D"]


class Marks(NamedTuple):
    """The steps at which the state is not simply handed on; None where there are none.

    Attributes:
      starts: True where a new document begins: the state is zero before the step.
      reads: False at padding: the step leaves the state as it is.
    """

    starts: Bool[Array, "T B"] | None = None
    reads: Bool[Array, "T B"] | None = None


@jax.custom_vjp
def lstm(
    inputs: Float[Array, "T B 4D"], kernel: Float[Array, "D 4D"], state: LSTMState, marks: Marks
) -> tuple[Float[Array, "T B D"], LSTMState]:
    """The outputs of all steps, and the last state; all float32.

    Gates are ordered input, forget, cell, output, as in PyTorch:
      i, f, o = sigmoid(...), g = tanh(...); c = f c + i g; h = o tanh(c).

    Args:
      inputs: the input's share of the gates before their nonlinearities, biases included; the product with the
        previous output is formed in this dtype.
      kernel: from the previous output to the gates.
      state: before the first step.
      marks: steps to handle apart.
    """
    return _forward(inputs, kernel, state, marks)[0]


_Saved = tuple[Array, Array, LSTMState, Marks, Array, LSTMState]


def _forward(inputs: Array, kernel: Array, state: LSTMState, marks: Marks) -> tuple[tuple[Array, LSTMState], _Saved]:
    weights = kernel.astype(inputs.dtype)

    def step(state: LSTMState, xs: tuple[Array, Marks]) -> tuple[LSTMState, tuple[Array, LSTMState]]:
        x, mark = xs
        old = _reset(state, mark)
        gates = _activate(x.astype(jnp.float32) + _product(old.h.astype(x.dtype), weights))
        i, f, g, o = jnp.split(gates, 4, -1)
        c = f * old.c + i * g
        new = _choose(mark, LSTMState(o * jnp.tanh(c), c), old)
        return new, (gates, new)

    last, (gates, states) = jax.lax.scan(step, state, (inputs, marks))
    return (states.h, last), (inputs[:0], kernel, state, marks, gates, states)


def _backward(saved: _Saved, given: tuple[Array, LSTMState]) -> tuple[Array, Array, LSTMState, None]:
    like, kernel, state, marks, gates, states = saved
    dtype = like.dtype
    weights = kernel.astype(dtype).T
    before = _reset(LSTMState(*(jnp.concatenate((a[None], b[:-1])) for a, b in zip(state, states, strict=True))), marks)

    # What the gradient of each step is multiplied by does not depend on the other steps: outside the loop, for all of
    # them at once, it costs a fraction of what many small operations in it do.
    i, f, g, o = jnp.split(gates, 4, -1)
    squashed = jnp.tanh(states.c)
    of_cell = o * (1 - squashed * squashed)
    of_gates = jnp.concatenate((g * i * (1 - i), before.c * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)), -1)

    def step(after: LSTMState, xs: tuple[Any, ...]) -> tuple[LSTMState, Array]:
        dy, f, of_cell, of_gates, mark = xs
        after = LSTMState(after.h + dy, after.c)
        dc = after.c + after.h * of_cell
        slopes = of_gates * jnp.concatenate((dc, dc, dc, after.h), -1)
        slopes = slopes if mark.reads is None else jnp.where(mark.reads[:, None], slopes, 0)
        new = _choose(mark, LSTMState(_product(slopes.astype(dtype), weights), dc * f), after)
        return _reset(new, mark), slopes

    first, slopes = jax.lax.scan(step, given[1], (given[0], f, of_cell, of_gates, marks), reverse=True)
    slopes = slopes.astype(dtype)
    d_kernel = jnp.einsum("tbd,tbg->dg", before.h.astype(dtype), slopes, preferred_element_type=jnp.float32)
    return slopes, d_kernel.astype(kernel.dtype), first, None


lstm.defvjp(_forward, _backward)


def _activate(gates: Float[Array, "B 4D"]) -> Float[Array, "B 4D"]:
    i_f, g, o = jnp.split(gates, (gates.shape[-1] // 2, gates.shape[-1] * 3 // 4), -1)
    return jnp.concatenate((jax.nn.sigmoid(i_f), jnp.tanh(g), jax.nn.sigmoid(o)), -1)


def _product(x: Float[Array, "B N"], weights: Float[Array, "N M"]) -> Float[Array, "B M"]:
    return jnp.matmul(x, weights, preferred_element_type=jnp.float32)


def _reset(state: LSTMState, mark: Marks) -> LSTMState:
    """Zero where a document starts."""
    if mark.starts is None:
        return state
    return LSTMState(*(jnp.where(mark.starts[..., None], 0, part) for part in state))


def _choose(mark: Marks, new: LSTMState, old: LSTMState) -> LSTMState:
    """The new state, or the old one at padding."""
    if mark.reads is None:
        return new
    return LSTMState(*(jnp.where(mark.reads[..., None], a, b) for a, b in zip(new, old, strict=True)))
