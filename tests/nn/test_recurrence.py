"""The LSTM recurrence and its hand-written gradient, against PyTorch and against automatic differentiation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.nn import recurrence
from lmlab.nn.recurrence import LSTMState, Marks, lstm

T, B, D = 7, 3, 5


def example() -> tuple[jax.Array, jax.Array, LSTMState]:
    keys = jax.random.split(jax.random.key(0), 4)
    state = LSTMState(jax.random.normal(keys[2], (B, D)), jax.random.normal(keys[3], (B, D)))
    return jax.random.normal(keys[0], (T, B, 4 * D)), jax.random.normal(keys[1], (D, 4 * D)), state


def test_outputs_states_and_gradients_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    inputs, kernel, state = example()
    weights = jax.random.normal(jax.random.key(9), (T, B, D))

    def ours(inputs, kernel, h, c):
        y, last = lstm(inputs, kernel, LSTMState(h, c), Marks())
        return (y * weights).sum() + (last.h * last.c).sum(), y

    (_, outputs), gradients = jax.value_and_grad(ours, (0, 1, 2, 3), has_aux=True)(inputs, kernel, *state)

    # The layer's input is the gates' share itself: its input matrix is the identity.
    layer = torch.nn.LSTM(4 * D, D, bias=False).double()
    given = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in (inputs, *state)]
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(4 * D))
        layer.weight_hh_l0.copy_(torch.tensor(np.asarray(kernel).T))
    y, (h, c) = layer(given[0], (given[1][None], given[2][None]))
    ((y * torch.tensor(np.asarray(weights))).sum() + (h * c).sum()).backward()

    np.testing.assert_allclose(outputs, y.detach(), atol=1e-6)
    theirs = [given[0].grad, layer.weight_hh_l0.grad.T, given[1].grad, given[2].grad]
    for mine, other in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


@pytest.mark.parametrize("name", ["none", "starts", "reads"])
def test_the_gradient_by_hand_is_the_automatic_one(name: str) -> None:
    inputs, kernel, state = example()
    some = jax.random.bernoulli(jax.random.key(5), 0.5, (T, B))
    marks = Marks() if name == "none" else Marks(**{name: some})
    keys = jax.random.split(jax.random.key(6), 3)
    weights, of_h, of_c = (jax.random.normal(k, s) for k, s in zip(keys, [(T, B, D), (B, D), (B, D)], strict=True))

    def gradient(run):
        def value(inputs, kernel, state):
            y, last = run(inputs, kernel, state, marks)
            return (y * weights).sum() + (last.h * of_h).sum() + (last.c * of_c).sum()

        return jax.jit(jax.grad(value, (0, 1, 2)))(inputs, kernel, state)

    automatic = gradient(lambda *given: recurrence._forward(*given)[0])
    for mine, other in zip(jax.tree.leaves(gradient(lstm)), jax.tree.leaves(automatic), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_padding_leaves_the_state_and_a_start_forgets_it() -> None:
    inputs, kernel, state = example()
    reads = jnp.arange(T)[:, None] < jnp.array([T, 4, 0])
    _, last = lstm(inputs, kernel, state, Marks(reads=reads))
    _, short = lstm(inputs[:4, 1:2], kernel, LSTMState(state.h[1:2], state.c[1:2]), Marks())
    np.testing.assert_allclose(last.c[1], short.c[0], atol=1e-6)
    np.testing.assert_array_equal(last.h[2], state.h[2])

    starts = jnp.zeros((T, B), bool).at[3, 1].set(True)
    outputs, _ = lstm(inputs, kernel, state, Marks(starts=starts))
    fresh, _ = lstm(inputs[3:, 1:2], kernel, LSTMState(jnp.zeros((1, D)), jnp.zeros((1, D))), Marks())
    np.testing.assert_allclose(outputs[3:, 1], fresh[:, 0], atol=1e-6)


def test_it_can_be_mapped_over_a_population() -> None:
    inputs, kernel, state = example()
    kernels = jnp.stack([kernel, kernel / 2])
    both = jax.vmap(jax.grad(lambda k: lstm(inputs, k, state, Marks())[0].sum()))(kernels)
    alone = jax.grad(lambda k: lstm(inputs, k, state, Marks())[0].sum())(kernels[1])
    np.testing.assert_allclose(both[1], alone, atol=1e-5)
