"""Recurrent layers of any cell, and layers that read in both directions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.nn.linear import Linear, uniform
from lmlab.nn.recurrence import HiddenState, LSTMState, Marks, elman, gru, lstm
from lmlab.ranges import NonNegative

Cell = Literal["elman", "lstm", "gru"]
RecurrentState = LSTMState | HiddenState


class Layer(nnx.Module):
    """One recurrent layer, N to D.

    Args:
      inputs: N.
      width: D.
      init_scale: kernels are uniform in [-init_scale, init_scale]; biases start at zero.
      rngs: where initial values come from.
    """

    gates: ClassVar[int]
    """Products of the input, and of the state, that a step needs."""
    State: ClassVar[type[LSTMState] | type[HiddenState]] = HiddenState

    def __init__(self, inputs: int, width: int, init_scale: NonNegative | Array, rngs: nnx.Rngs) -> None:
        self.width = width
        self.input = Linear(inputs, self.gates * width, uniform(init_scale), rngs=rngs)
        self.recurrent = Linear(width, self.gates * width, uniform(init_scale), bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "T B N"], state: Any, marks: Marks, *, also: Float[Array, "T B G"] | None = None
    ) -> tuple[Float[Array, "T B D"], Any]:
        """The layer's outputs, in the dtype of x, and its last state.

        Args:
          x: what it reads.
          state: before the first step.
          marks: steps to handle apart.
          also: added to the input's share of the gates.
        """
        shares = self.shares(x)
        outputs, state = self.run(shares if also is None else shares + also, state, marks)
        return outputs.astype(x.dtype), state

    def shares(self, x: Float[Array, "T B N"]) -> Float[Array, "T B G"]:
        """The input's share of the gates in all steps, by one product."""
        time, batch, width = x.shape
        return self.input(x.reshape(time * batch, width)).reshape(time, batch, -1)

    @abstractmethod
    def run(self, shares: Float[Array, "T B G"], state: Any, marks: Marks) -> tuple[Float[Array, "T B D"], Any]:
        """The outputs, float32, and the last state."""

    @classmethod
    def start(cls, *shape: int) -> Any:
        """The state before anything is read, of shape (..., D)."""
        return cls.State(*(jnp.zeros(shape) for _ in cls.State._fields))


class ElmanLayer(Layer):
    """One layer of a simple recurrent network (Elman 1990); see `recurrence.elman`."""

    gates = 1

    def run(self, shares: Float[Array, "T B G"], state: Any, marks: Marks) -> tuple[Float[Array, "T B D"], Any]:
        """The outputs, float32, and the last state."""
        return elman(shares, self.recurrent.kernel[...], state, marks)


class LSTMLayer(Layer):
    """One LSTM layer; see `recurrence.lstm`.

    Args:
      inputs, width, init_scale, rngs: see `Layer`.
      forget_bias: initial bias of the forget gate; the others start at zero.
    """

    gates = 4
    State = LSTMState

    def __init__(
        self,
        inputs: int,
        width: int,
        init_scale: NonNegative | Array,
        rngs: nnx.Rngs,
        *,
        forget_bias: float | Array = 1.0,
    ) -> None:
        super().__init__(inputs, width, init_scale, rngs)
        self.input.bias = nnx.Param(jnp.repeat(jnp.array([0.0, forget_bias, 0.0, 0.0]), width), role="bias")

    def run(self, shares: Float[Array, "T B G"], state: Any, marks: Marks) -> tuple[Float[Array, "T B D"], Any]:
        """The outputs, float32, and the last state."""
        return lstm(shares, self.recurrent.kernel[...], state, marks)


class GRULayer(Layer):
    """One GRU layer; see `recurrence.gru`. `recurrent` has a bias, for the candidate."""

    gates = 3

    def __init__(self, inputs: int, width: int, init_scale: NonNegative | Array, rngs: nnx.Rngs) -> None:
        super().__init__(inputs, width, init_scale, rngs)
        self.recurrent.bias = nnx.data(nnx.Param(jnp.zeros(width), role="bias"))

    def run(self, shares: Float[Array, "T B G"], state: Any, marks: Marks) -> tuple[Float[Array, "T B D"], Any]:
        """The outputs, float32, and the last state."""
        assert self.recurrent.bias is not None
        return gru(shares, self.recurrent.kernel[...], self.recurrent.bias[...], state, marks)


LAYERS: dict[Cell, type[Layer]] = {"elman": ElmanLayer, "lstm": LSTMLayer, "gru": GRULayer}
"""The layer of each cell."""


class TwoWayLayer(nnx.Module):
    """Two layers that read in opposite directions, side by side: N to D, of which each makes half.

    Args:
      cell: of both.
      inputs: N.
      width: D, even.
      init_scale: see `Layer`.
      rngs: where initial values come from.
    """

    def __init__(self, cell: Cell, inputs: int, width: int, init_scale: NonNegative | Array, rngs: nnx.Rngs) -> None:
        self.forward = LAYERS[cell](inputs, width // 2, init_scale, rngs)
        self.backward = LAYERS[cell](inputs, width // 2, init_scale, rngs)

    def __call__(self, x: Float[Array, "T B N"], marks: Marks) -> tuple[Float[Array, "T B D"], Any]:
        """Both directions' outputs after each step was read, and both last states, each side by side; from zero on."""
        zeros = self.forward.start(x.shape[1], self.forward.width)
        ahead, end = self.forward(x, zeros, marks)
        back, beginning = self.backward(x[::-1], zeros, marks.reversed())
        states = [jnp.concatenate(pair, -1) for pair in zip(end, beginning, strict=True)]
        return jnp.concatenate((ahead, back[::-1]), -1), type(end)(*states)
