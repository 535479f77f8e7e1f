"""The recurrences and their hand-written gradients: float64 NumPy, PyTorch, and automatic differentiation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.nn import recurrence
from lmlab.nn.recurrence import HiddenState, LSTMState, Marks, elman, gru, lstm

T, B, D = 7, 3, 5


class Case(NamedTuple):
    """A recurrence, and the products of its step."""

    run: Any
    forward: Any
    gates: int
    state: Any


CASES = {
    "elman": Case(elman, recurrence._elman_forward, 1, HiddenState),
    "lstm": Case(lstm, recurrence._forward, 4, LSTMState),
    "gru": Case(gru, recurrence._gru_forward, 3, HiddenState),
}
every_cell = pytest.mark.parametrize("cell", CASES)


def example(cell: str) -> tuple[jax.Array, tuple[jax.Array, ...], Any]:
    """Inputs (T, B, G), the parameters of the recurrence, and a state to begin with."""
    case, keys = CASES[cell], jax.random.split(jax.random.key(0), 5)
    width = case.gates * D
    state = case.state(*(jax.random.normal(key, (B, D)) for key in keys[2 : 2 + len(case.state._fields)]))
    parameters = [jax.random.normal(keys[1], (D, width))]
    if cell == "gru":
        parameters.append(jax.random.normal(keys[4], (D,)))
    return jax.random.normal(keys[0], (T, B, width)), tuple(parameters), state


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def step_by_hand(cell: str, x: np.ndarray, parameters: list[np.ndarray], state: list[np.ndarray]) -> list[np.ndarray]:
    """One step in float64."""
    h, product = state[0], state[0] @ parameters[0]
    if cell == "elman":
        return [np.tanh(x + product)]
    if cell == "gru":
        r, z = (sigmoid(x[:, at : at + D] + product[:, at : at + D]) for at in (0, D))
        n = np.tanh(x[:, 2 * D :] + r * (product[:, 2 * D :] + parameters[1]))
        return [(1 - z) * n + z * h]
    i, f, g, o = np.split(x + product, 4, -1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


@every_cell
def test_outputs_and_states_are_those_of_float64(cell: str) -> None:
    inputs, parameters, state = example(cell)
    outputs, last = jax.jit(CASES[cell].run)(inputs, *parameters, state, Marks())
    by_hand, weights = [np.asarray(part, np.float64) for part in state], [np.asarray(w, np.float64) for w in parameters]
    for t in range(T):
        by_hand = step_by_hand(cell, np.asarray(inputs[t], np.float64), weights, by_hand)
        np.testing.assert_allclose(outputs[t], by_hand[0], atol=2e-6)
    for mine, other in zip(last, by_hand, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-6)


@every_cell
def test_outputs_states_and_gradients_are_those_of_pytorch(cell: str) -> None:
    torch = pytest.importorskip("torch")
    inputs, parameters, state = example(cell)
    weights, width = jax.random.normal(jax.random.key(9), (T, B, D)), inputs.shape[-1]

    def ours(inputs, parameters, state):
        y, last = CASES[cell].run(inputs, *parameters, state, Marks())
        return (y * weights).sum() + jnp.prod(jnp.stack(last), 0).sum(), y

    (_, outputs), gradients = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(inputs, parameters, state)

    # The layer's input is the gates' share itself: its input matrix is the identity.
    layer = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](width, D).double()
    given = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in (inputs, *state)]
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(width))
        layer.weight_hh_l0.copy_(torch.tensor(np.asarray(parameters[0]).T.copy()))
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
        if cell == "gru":
            layer.bias_hh_l0[2 * D :].copy_(torch.tensor(np.asarray(parameters[1]).copy()))
    begin = [part[None] for part in given[1:]]
    y, last = layer(given[0], tuple(begin) if cell == "lstm" else begin[0])
    last = torch.stack(list(last) if cell == "lstm" else [last])
    ((y * torch.tensor(np.asarray(weights))).sum() + last.prod(0).sum()).backward()

    np.testing.assert_allclose(outputs, y.detach(), atol=2e-6)
    theirs = [given[0].grad, layer.weight_hh_l0.grad.T]
    theirs += [layer.bias_hh_l0.grad[2 * D :]] if cell == "gru" else []
    theirs += [part.grad for part in given[1:]]
    for mine, other in zip(jax.tree.leaves(gradients), theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=3e-5)


@every_cell
@pytest.mark.parametrize("name", ["none", "starts", "reads"])
def test_the_gradient_by_hand_is_the_automatic_one(cell: str, name: str) -> None:
    case, (inputs, parameters, state) = CASES[cell], example(cell)
    some = jax.random.bernoulli(jax.random.key(5), 0.5, (T, B))
    marks = Marks() if name == "none" else Marks(**{name: some})
    weights = jax.random.normal(jax.random.key(6), (T, B, D))
    of_last = jax.random.normal(jax.random.key(7), (len(state), B, D))

    def gradient(run):
        def value(inputs, parameters, state):
            y, last = run(inputs, *parameters, state, marks)
            return (y * weights).sum() + (jnp.stack(last) * of_last).sum()

        return jax.grad(value, (0, 1, 2))(inputs, parameters, state)

    found, automatic = jax.jit(lambda: (gradient(case.run), gradient(lambda *given: case.forward(*given)[0])))()
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(automatic), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


@every_cell
def test_padding_leaves_the_state_and_a_start_forgets_it(cell: str) -> None:
    run, (inputs, parameters, state) = jax.jit(CASES[cell].run), example(cell)
    reads = jnp.arange(T)[:, None] < jnp.array([T, 4, 0])
    _, last = run(inputs, *parameters, state, Marks(reads=reads))
    _, short = run(inputs[:4, 1:2], *parameters, type(state)(*(part[1:2] for part in state)), Marks())
    np.testing.assert_allclose(last[-1][1], short[-1][0], atol=1e-6)
    np.testing.assert_array_equal(last.h[2], state.h[2])

    starts = jnp.zeros((T, B), bool).at[3, 1].set(True)
    outputs, _ = run(inputs, *parameters, state, Marks(starts=starts))
    fresh, _ = run(inputs[3:, 1:2], *parameters, type(state)(*(jnp.zeros((1, D)) for _ in state)), Marks())
    np.testing.assert_allclose(outputs[3:, 1], fresh[:, 0], atol=1e-6)


def test_marks_of_a_reversed_row_start_at_the_documents_ends() -> None:
    segments = jnp.array([[1, 1, 2, 2, 2, 0, 0]])
    marks = Marks.of_documents(segments)
    assert marks.starts[:, 0].tolist() == [False, False, True, False, False, True, False]
    assert marks.reversed().starts[:, 0].tolist() == [False, False, True, False, False, True, False]
    shorter = Marks.of_documents(jnp.array([[1, 2, 2, 2]])).reversed()
    assert shorter.starts[:, 0].tolist() == [False, False, False, True]


@every_cell
def test_it_can_be_mapped_over_a_population(cell: str) -> None:
    inputs, (kernel, *rest), state = example(cell)
    run = CASES[cell].run
    slope = jax.grad(lambda k: run(inputs, k, *rest, state, Marks())[0].sum())
    both = jax.jit(jax.vmap(slope))(jnp.stack([kernel, kernel / 2]))
    np.testing.assert_allclose(both[1], jax.jit(slope)(kernel / 2), atol=1e-5)
