"""The temporal convolutional network, against torch's weight-normed dilated convolutions with the same weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.models.tcn import TCN
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, T, B, E, D, L, TAPS = 17, 19, 2, 5, 7, 3, 2
VIEW = 1 + 2 * (TAPS - 1) * (2**L - 1)


def tcn(**given: Any) -> ModelDef[TCN]:
    sizes = {
        "width": D, "layers": L, "taps": TAPS, "embedding_width": E, "tie_embeddings": False, "init_std": 0.4, **given
    }  # fmt: skip
    return ModelDef.of(lambda rngs: TCN(V, jnp.float32, rngs, **sizes))


@pytest.fixture(scope="module")
def params() -> dict[str, jax.Array]:
    return drawn(tcn(), std=0.4)


@pytest.fixture(scope="module")
def read(params: dict[str, jax.Array]) -> Any:
    return jax.jit(lambda tokens, **given: tcn().bind(params).hidden(tokens, **given))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, V, (B, T))


def test_states_are_those_of_pytorch(params, read, tokens) -> None:
    torch = pytest.importorskip("torch")
    weight_norm = torch.nn.utils.parametrizations.weight_norm

    def tensor(path: str) -> Any:
        return torch.tensor(np.asarray(params[path], np.float64))

    def convolve(x: Any, path: str, dilation: int) -> Any:
        inputs = x.shape[1]
        conv = weight_norm(torch.nn.Conv1d(inputs, D, TAPS, dilation=dilation, padding=(TAPS - 1) * dilation).double())
        conv.parametrizations.weight.original1.copy_(tensor(f"{path}/kernel").reshape(TAPS, inputs, D).permute(2, 1, 0))
        conv.parametrizations.weight.original0.copy_(tensor(f"{path}/scale")[:, None, None])
        conv.bias.copy_(tensor(f"{path}/bias"))
        return torch.relu(conv(x)[..., :T])

    with torch.no_grad():
        x = tensor("embedding/embedding")[torch.tensor(tokens)].mT
        for layer in range(L):
            y = convolve(convolve(x, f"blocks/{layer}/first", 2**layer), f"blocks/{layer}/second", 2**layer)
            if layer == 0:
                x = (x.mT @ tensor("blocks/0/shortcut/kernel") + tensor("blocks/0/shortcut/bias")).mT
            x = torch.relu(x + y)
    np.testing.assert_allclose(read(tokens)[0], x.mT.numpy(), atol=1e-5)


def test_it_sees_its_receptive_field_and_no_further(read, tokens) -> None:
    """By brute force: change one token, see which states change."""
    changed = tokens.copy()
    changed[:, 1] = (changed[:, 1] + 1) % V
    differs = np.any(np.asarray(read(tokens)[0] != read(changed)[0]), -1).any(0)
    np.testing.assert_array_equal(np.flatnonzero(differs), np.arange(1, 1 + VIEW))


def test_rows_of_different_lengths_share_a_cache(params, read, tokens) -> None:
    lengths = np.array([5, 2])
    there = (np.arange(5) < lengths[:, None]).astype(np.int32)
    _, cache = read(tokens[:, :5], segment_ids=there, cache=tcn().bind(params).init_cache(B, T))
    states, cache = read(tokens[np.arange(B), lengths][:, None], cache=cache)
    np.testing.assert_allclose(states[:, 0], np.asarray(read(tokens)[0])[np.arange(B), lengths], atol=1e-5)
    assert [leaf.shape[1] for leaf in jax.tree.leaves(cache.layers)] == [1, 1, 2, 2, 4, 4]


def test_dropout_takes_whole_channels(params, tokens) -> None:
    model = tcn(layers=1, embedding_width=D, dropout=0.5, embedding_dropout=0.0)
    own = {path: value for path, value in params.items() if path in model.shapes}
    own |= {path: jnp.ones(shape.shape) for path, shape in model.shapes.items() if path != "embedding/embedding"}
    own["embedding/embedding"] = 1 + jnp.abs(jax.random.normal(jax.random.key(1), (V, D)))
    keys = jax.random.split(jax.random.key(2), B)
    read = jax.jit(lambda **given: model.bind(own).hidden(tokens, **given)[0] - own["embedding/embedding"][tokens])
    dropped = np.asarray(read(keys=keys)) < 1e-4
    assert (dropped == dropped[:, :1]).all()
    assert 0 < dropped.mean() < 1 and (dropped[0] != dropped[1]).any()


def test_a_narrower_embedding_cannot_be_tied() -> None:
    with pytest.raises(ConfigError, match=r"tcn.width = 7, not tcn.embedding_width = 5"):
        tcn(tie_embeddings=True)
