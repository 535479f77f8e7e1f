"""Recurrences over time: Elman (1990), LSTM (Hochreiter & Schmidhuber 1997, Gers et al. 2000), GRU (Cho et al. 2014).

The input's share of the gates does not depend on the state, so that the caller forms it for all steps by one product.
What is left in the loop is one small product a step. Its gradient keeps the gates' gradients of all steps and forms
the recurrent kernel's by one product after the loop; automatic differentiation would add up T outer products.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

S = TypeVar("S", bound="LSTMState | HiddenState")


class HiddenState(NamedTuple):
    """What an Elman or GRU layer remembers: its output, float32; (L, B, D) for all layers."""

    h: Float[Array, "B D"]


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

    @classmethod
    def of_documents(cls, segment_ids: Int[Array, "B T"] | None) -> Marks:
        """Each document of a row starts from zero; what stands in the padding (0) reaches none of them."""
        if segment_ids is None:
            return cls()
        segments = segment_ids.T
        return cls(starts=jnp.concatenate((jnp.zeros_like(segments[:1], bool), segments[1:] != segments[:-1])))

    @classmethod
    def of_reading(cls, segment_ids: Int[Array, "B T"] | None) -> Marks:
        """The state goes on through the row, but for padding (0), which is not read."""
        return cls() if segment_ids is None else cls(reads=segment_ids.T != 0)

    def reversed(self) -> Marks:
        """The marks of reading from the last step to the first; given to recurrences of a reversed input.

        A document then starts at the step that was its last one.
        """
        starts = None if self.starts is None else jnp.roll(self.starts, -1, 0)[::-1].at[0].set(False)
        return Marks(starts, None if self.reads is None else self.reads[::-1])


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
    before = _shifted(state, states, marks)

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
        slopes = _unread(mark, of_gates * jnp.concatenate((dc, dc, dc, after.h), -1))
        new = _choose(mark, LSTMState(_product(slopes.astype(dtype), weights), dc * f), after)
        return _reset(new, mark), slopes

    first, slopes = jax.lax.scan(step, given[1], (given[0], f, of_cell, of_gates, marks), reverse=True)
    slopes = slopes.astype(dtype)
    return slopes, _of_kernel(before.h, slopes).astype(kernel.dtype), first, None


lstm.defvjp(_forward, _backward)


@jax.custom_vjp
def elman(
    inputs: Float[Array, "T B D"], kernel: Float[Array, "D D"], state: HiddenState, marks: Marks
) -> tuple[Float[Array, "T B D"], HiddenState]:
    """The outputs of all steps, and the last state; all float32.

      h = tanh(input + h kernel), as torch.nn.RNN has it; the logistic function stands there in the paper.

    Args:
      inputs: the input's share, bias included; the product with the previous output is formed in this dtype.
      kernel: from the previous output to this one.
      state: before the first step.
      marks: steps to handle apart.
    """
    return _elman_forward(inputs, kernel, state, marks)[0]


def _elman_forward(
    inputs: Array, kernel: Array, state: HiddenState, marks: Marks
) -> tuple[tuple[Array, HiddenState], tuple[Any, ...]]:
    weights = kernel.astype(inputs.dtype)

    def step(state: HiddenState, xs: tuple[Array, Marks]) -> tuple[HiddenState, HiddenState]:
        x, mark = xs
        old = _reset(state, mark)
        new = HiddenState(jnp.tanh(x.astype(jnp.float32) + _product(old.h.astype(x.dtype), weights)))
        new = _choose(mark, new, old)
        return new, new

    last, states = jax.lax.scan(step, state, (inputs, marks))
    return (states.h, last), (inputs[:0], kernel, state, marks, states)


def _elman_backward(saved: tuple[Any, ...], given: tuple[Array, HiddenState]) -> tuple[Array, Array, HiddenState, None]:
    like, kernel, state, marks, states = saved
    weights = kernel.astype(like.dtype).T

    def step(after: HiddenState, xs: tuple[Any, ...]) -> tuple[HiddenState, Array]:
        dy, of_input, mark = xs
        after = HiddenState(after.h + dy)
        slopes = _unread(mark, of_input * after.h)
        new = _choose(mark, HiddenState(_product(slopes.astype(like.dtype), weights)), after)
        return _reset(new, mark), slopes

    of_input = 1 - states.h * states.h
    first, slopes = jax.lax.scan(step, given[1], (given[0], of_input, marks), reverse=True)
    slopes = slopes.astype(like.dtype)
    return slopes, _of_kernel(_shifted(state, states, marks).h, slopes).astype(kernel.dtype), first, None


elman.defvjp(_elman_forward, _elman_backward)


@jax.custom_vjp
def gru(
    inputs: Float[Array, "T B 3D"],
    kernel: Float[Array, "D 3D"],
    bias: Float[Array, " D"],
    state: HiddenState,
    marks: Marks,
) -> tuple[Float[Array, "T B D"], HiddenState]:
    """The outputs of all steps, and the last state; all float32.

    Gates are ordered reset, update, candidate, and the reset gate acts on the product with the previous output, as in
    the first version of Cho et al. 2014 (arXiv:1406.1078v1) and in PyTorch:
      r, z = sigmoid(...), n = tanh(input + r (h kernel + bias)); h = (1 - z) n + z h.

    Args:
      inputs: the input's share of the gates before their nonlinearities, biases included; the product with the
        previous output is formed in this dtype.
      kernel: from the previous output to the gates.
      bias: of that product's share of the candidate.
      state: before the first step.
      marks: steps to handle apart.
    """
    return _gru_forward(inputs, kernel, bias, state, marks)[0]


def _gru_forward(
    inputs: Array, kernel: Array, bias: Array, state: HiddenState, marks: Marks
) -> tuple[tuple[Array, HiddenState], tuple[Any, ...]]:
    weights = kernel.astype(inputs.dtype)

    def step(state: HiddenState, xs: tuple[Array, Marks]) -> tuple[HiddenState, tuple[Array, HiddenState]]:
        x, mark = xs
        old, (x_rz, x_n) = _reset(state, mark), _two_and_one(x.astype(jnp.float32))
        of_rz, of_n = _two_and_one(_product(old.h.astype(x.dtype), weights))
        share = of_n + bias
        r, z = jnp.split(jax.nn.sigmoid(x_rz + of_rz), 2, -1)
        n = jnp.tanh(x_n + r * share)
        new = _choose(mark, HiddenState(n + z * (old.h - n)), old)
        return new, (jnp.concatenate((r, z, n, share), -1), new)

    last, (gates, states) = jax.lax.scan(step, state, (inputs, marks))
    return (states.h, last), (inputs[:0], kernel, bias, state, marks, gates, states)


def _gru_backward(
    saved: tuple[Any, ...], given: tuple[Array, HiddenState]
) -> tuple[Array, Array, Array, HiddenState, None]:
    like, kernel, bias, state, marks, gates, states = saved
    weights = kernel.astype(like.dtype).T
    before = _shifted(state, states, marks)

    # All slopes are the output's gradient times something that no other step changes: see `_backward`.
    r, z, n, share = jnp.split(gates, 4, -1)
    of_n = (1 - z) * (1 - n * n)
    of_gates = jnp.concatenate((of_n * share * r * (1 - r), (before.h - n) * z * (1 - z), of_n * r, of_n), -1)

    def step(after: HiddenState, xs: tuple[Any, ...]) -> tuple[HiddenState, Array]:
        dy, z, of_gates, mark = xs
        after = HiddenState(after.h + dy)
        slopes = _unread(mark, of_gates * jnp.tile(after.h, (1, 4)))
        of_product = slopes[:, : 3 * dy.shape[-1]].astype(like.dtype)
        new = _choose(mark, HiddenState(after.h * z + _product(of_product, weights)), after)
        return _reset(new, mark), slopes

    first, slopes = jax.lax.scan(step, given[1], (given[0], z, of_gates, marks), reverse=True)
    of_rz, of_share, of_candidate = jnp.split(slopes, (2 * z.shape[-1], 3 * z.shape[-1]), -1)
    d_kernel = _of_kernel(before.h, jnp.concatenate((of_rz, of_share), -1).astype(like.dtype))
    d_inputs = jnp.concatenate((of_rz, of_candidate), -1).astype(like.dtype)
    return d_inputs, d_kernel.astype(kernel.dtype), of_share.sum((0, 1)).astype(bias.dtype), first, None


gru.defvjp(_gru_forward, _gru_backward)


def _two_and_one(gates: Float[Array, "B 3D"]) -> list[Array]:
    return jnp.split(gates, (gates.shape[-1] // 3 * 2,), -1)


def _activate(gates: Float[Array, "B 4D"]) -> Float[Array, "B 4D"]:
    i_f, g, o = jnp.split(gates, (gates.shape[-1] // 2, gates.shape[-1] * 3 // 4), -1)
    return jnp.concatenate((jax.nn.sigmoid(i_f), jnp.tanh(g), jax.nn.sigmoid(o)), -1)


def _product(x: Float[Array, "B N"], weights: Float[Array, "N M"]) -> Float[Array, "B M"]:
    return jnp.matmul(x, weights, preferred_element_type=jnp.float32)


def _reset(state: S, mark: Marks) -> S:
    """Zero where a document starts."""
    starts = mark.starts
    if starts is None:
        return state
    return jax.tree.map(lambda part: jnp.where(starts[..., None], 0, part), state)


def _choose(mark: Marks, new: S, old: S) -> S:
    """The new state, or the old one at padding."""
    reads = mark.reads
    if reads is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(reads[..., None], a, b), new, old)


def _shifted(state: S, states: S, marks: Marks) -> S:
    """The states that the steps began with, (T, B, D)."""
    return _reset(jax.tree.map(lambda a, b: jnp.concatenate((a[None], b[:-1])), state, states), marks)


def _unread(mark: Marks, slopes: Array) -> Array:
    """No gradient reaches the input of a step that reads nothing."""
    return slopes if mark.reads is None else jnp.where(mark.reads[:, None], slopes, 0)


def _of_kernel(before: Float[Array, "T B D"], slopes: Float[Array, "T B N"]) -> Float[Array, "D N"]:
    """The recurrent kernel's gradient: one product for all steps."""
    return jnp.einsum("tbd,tbg->dg", before.astype(slopes.dtype), slopes, preferred_element_type=jnp.float32)
