"""Convolutional features and highway layers against float64 NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.nn.functional import ModelDef
from lmlab.nn.linear import normal
from lmlab.nn.text_convolution import Highway, TextConvolution

B, T, E = 5, 7, 3
WIDTHS, FILTERS = (1, 3, 11), (2, 5, 4)  # the last is wider than any text
DRAW = np.random.default_rng(3)


class Both(nnx.Module):
    def __init__(self, rngs):
        self.features = TextConvolution(E, WIDTHS, FILTERS, normal(0.5), bias=0.1, rngs=rngs)
        self.highway = Highway(sum(FILTERS), normal(0.5), gate_bias=-1.0, rngs=rngs)

    def __call__(self, x, there):
        features = self.features(x, there)
        return features, self.highway(features)


MODEL = ModelDef.of(lambda rngs: Both(rngs))
LENGTHS = [7, 5, 2, 1, 0]
X = DRAW.normal(size=(B, T, E)).astype(np.float32)


@pytest.fixture(scope="module")
def found():
    params = jax.jit(MODEL.init)(jax.random.key(0))
    params = {p: v + 0.2 * DRAW.normal(size=v.shape).astype(np.float32) for p, v in params.items()}
    there = jnp.arange(T) < jnp.array(LENGTHS)[:, None]
    return jax.device_get((params, *jax.jit(lambda p, x: MODEL.bind(p)(x, there))(params, X)))


def maxima(text, params, number, width):
    """Filter by filter and place by place; a text shorter than the filter is padded with zeros to its width."""
    kernel = np.float64(params[f"features/convolutions/{number}/kernel"]).reshape(width, E, -1)
    bias = np.float64(params[f"features/convolutions/{number}/bias"])
    text = np.pad(np.float64(text), ((0, max(width - len(text), 0)), (0, 0)))
    places = range(len(text) - width + 1)
    return np.max([np.maximum(np.einsum("we,wef->f", text[p : p + width], kernel) + bias, 0) for p in places], 0)


def test_features_are_the_maxima_over_the_places_of_each_text(found):
    params, features, _ = found
    for row, length in enumerate(LENGTHS):
        expected = [maxima(X[row, :length], params, n, width) for n, width in enumerate(WIDTHS)]
        np.testing.assert_allclose(features[row], np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_a_whole_text_has_the_features_that_pytorch_finds(found):
    torch = pytest.importorskip("torch")
    params, features, _ = found
    kernel = params["features/convolutions/1/kernel"].reshape(3, E, 5).transpose(2, 1, 0)
    read = torch.from_numpy(X[:1].transpose(0, 2, 1).copy())
    weight, bias = torch.from_numpy(kernel.copy()), torch.from_numpy(params["features/convolutions/1/bias"].copy())
    expected = torch.relu(torch.nn.functional.conv1d(read, weight, bias)).amax(2).numpy()
    np.testing.assert_allclose(features[:1, 2:7], expected, rtol=1e-5, atol=1e-6)


def test_a_highway_layer_mixes_what_it_reads_with_what_it_makes_of_it(found):
    params, features, mixed = found
    p, x = {path: np.float64(value) for path, value in params.items()}, np.float64(features)
    gate = 1 / (1 + np.exp(-(x @ p["highway/gate/kernel"] + p["highway/gate/bias"])))
    made = np.maximum(x @ p["highway/transform/kernel"] + p["highway/transform/bias"], 0)
    np.testing.assert_allclose(mixed, gate * made + (1 - gate) * x, rtol=1e-5, atol=1e-6)
    assert p["highway/gate/bias"].mean() < -0.5
