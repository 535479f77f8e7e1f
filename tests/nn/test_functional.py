"""ModelDef: a model as a function of a flat dict of arrays, and the ways in which nnx alone would go wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.errors import CheckpointError
from lmlab.nn.functional import ModelDef, ParameterMismatch
from lmlab.nn.linear import Linear, normal

WIDTH, DEPTH = 3, 13  # more than ten layers: as strings, "10" sorts before "2"


class Tower(nnx.Module):
    """Layers in a list, so that their paths have numbers in them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([Linear(WIDTH, WIDTH, normal(0.7), rngs=rngs) for _ in range(DEPTH)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


@pytest.fixture(scope="module")
def tower() -> ModelDef[Tower]:
    return ModelDef.of(Tower)


@pytest.fixture(scope="module")
def params(tower: ModelDef[Tower]) -> dict[str, jax.Array]:
    return jax.jit(tower.init)(jax.random.key(0))


def forward(params: dict[str, jax.Array], x: np.ndarray) -> np.ndarray:
    for layer in range(DEPTH):
        kernel, bias = (np.asarray(params[f"layers/{layer}/{name}"], np.float64) for name in ("kernel", "bias"))
        x = np.tanh(x @ kernel + bias)
    return x


def test_paths_shapes_and_roles_are_known_without_computing(tower: ModelDef[Tower]) -> None:
    assert tower.shapes["layers/12/kernel"] == jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)
    assert tower.roles["layers/12/kernel"] == "kernel"
    assert tower.roles["layers/12/bias"] == "bias"
    assert tower.size == DEPTH * (WIDTH * WIDTH + WIDTH)


@pytest.mark.parametrize("order", [sorted, lambda paths: sorted(paths, reverse=True), list])
def test_thirteen_layers_keep_their_order_whatever_the_order_of_the_dict(tower, params, order) -> None:
    shuffled = {path: params[path] for path in order(params)}
    x = np.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH)
    np.testing.assert_allclose(tower.bind(shuffled)(jnp.asarray(x, jnp.float32)), forward(params, x), atol=1e-6)


def test_the_trap_is_there_nnx_alone_takes_renamed_and_reordered_parameters(tower, params) -> None:
    by_string = {"layers": {str(i): {n: params[f"layers/{i}/{n}"] for n in ("kernel", "bias")} for i in range(DEPTH)}}
    x = jnp.ones((1, WIDTH))
    wrong = nnx.merge(tower.graphdef, by_string)(x)
    assert not np.allclose(wrong, tower.bind(params)(x), atol=1e-3)


def test_a_renamed_path_is_refused_and_named(tower, params) -> None:
    renamed = {path.replace("layers/3/kernel", "layers/3/weight"): value for path, value in params.items()}
    with pytest.raises(ParameterMismatch, match=r"missing layers/3/kernel \(3, 3\); unknown layers/3/weight"):
        tower.bind(renamed)


def test_a_missing_path_and_another_shape_are_refused_together(tower, params) -> None:
    changed = {path: value for path, value in params.items() if path != "layers/11/bias"}
    changed["layers/5/kernel"] = jnp.zeros((WIDTH, WIDTH + 1))
    with pytest.raises(CheckpointError) as error:
        tower.bind(changed)
    assert "missing layers/11/bias" in str(error.value)
    assert "layers/5/kernel is (3, 4), the model has (3, 3)" in str(error.value)


def test_init_is_pure_and_a_population_equals_its_members(tower) -> None:
    keys = jax.random.split(jax.random.key(7), 5)
    population = jax.jit(jax.vmap(tower.init))(keys)
    for path, value in jax.jit(tower.init)(keys[2]).items():
        np.testing.assert_array_equal(population[path][2], value)


def test_binding_adds_nothing_to_the_gradient(tower, params) -> None:
    gradient = jax.grad(lambda p: tower.bind(p)(jnp.ones((2, WIDTH))).sum())(params)
    assert gradient.keys() == params.keys()
    assert all(gradient[path].shape == value.shape for path, value in params.items())


def test_arrays_that_are_not_parameters_are_refused() -> None:
    class Hoarder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.rngs = rngs

    with pytest.raises(TypeError, match=r"Hoarder holds rngs.*nnx\.Param only"):
        ModelDef.of(Hoarder)


def test_a_parameter_without_a_role_is_refused() -> None:
    class Roleless(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.kernel = nnx.Param(jnp.zeros(3))

    with pytest.raises(TypeError, match="parameter kernel has the role None"):
        ModelDef.of(Roleless)
