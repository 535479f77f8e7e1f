"""Windows read one after the other with what is carried between them are one long window."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.losses.autoregressive import Autoregressive
from lmlab.registry import find
from lmlab.testing.of_models import moved
from lmlab.testing.tiny import Tiny

B, T, V = 3, 5, 13
MODELS = [
    "lstm",
    "hmm",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("elman", "gru", "mamba", "retention", "tcn")),
]


@pytest.mark.parametrize("name", MODELS)
def test_windows_with_carry_are_one_long_window(name: str, tmp_path: Path) -> None:
    entry = find(name)
    assert entry is not None
    model = Tiny(entry, tmp_path).program().model
    ids = np.random.default_rng(1).integers(0, V, (B, 2 * T + 1))
    long = {"tokens": ids[:, :-1], "targets": ids[:, 1:], "weights": np.ones((B, 2 * T), np.float32)}
    windows = [
        {**{name: values[:, part] for name, values in long.items()}, "fresh": np.full(B, part.start == 0)}
        for part in (slice(0, T), slice(T, 2 * T))
    ]
    # The last row begins anew in the second window, and is what it would be alone.
    windows[1]["fresh"][-1] = True
    loss, step = Autoregressive(carry=True), jnp.int32(0)

    @jax.jit
    def sums(params):
        bound = model.bind(params)
        rows = slice(0, B - 1)
        whole = loss(bound, {name: values[rows] for name, values in long.items()}, None, step).total
        alone = [loss(bound, {name: window[name][B - 1 :] for name in long}, None, step).total for window in windows]
        rubbish = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), loss.start(bound, B))
        first, carry = loss.carried(bound, windows[0], rubbish, None, step)
        second, _ = loss.carried(bound, windows[1], carry, None, step)
        return first.total + second.total, whole + sum(alone)

    @jax.jit
    def gradients(params):
        def carried(params):
            bound = model.bind(params)
            return loss.carried(bound, windows[0], loss.start(bound, B), None, step)[0].total

        return jax.grad(carried)(params), jax.grad(lambda p: loss(model.bind(p), windows[0], None, step).total)(params)

    params = moved(model)
    np.testing.assert_allclose(*sums(params), rtol=2e-5)
    ours, expected = gradients(params)
    for path, value in expected.items():
        np.testing.assert_allclose(ours[path], value, rtol=1e-4, atol=1e-4, err_msg=path)
