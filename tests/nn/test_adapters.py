"""Low-rank adaptation against float64 NumPy: what is added to which columns of which block, and its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.errors import ConfigError
from lmlab.nn.adapters import ADAPTER, LoRA
from lmlab.nn.functional import ModelDef
from lmlab.nn.linear import Columns, Linear, normal
from lmlab.nn.stack import make_stack
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

L, IN, HEADS, K, OUT, RANK, ALPHA = 3, 7, 2, 5, 11, 2, 3.0


class Layer(nnx.Module):
    """A layer with queries, keys and values side by side, and a product of its own."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        columns = Columns(("q", "k", "v"), HEADS)
        self.qkv = Linear(IN, 3 * HEADS * K, normal(0.7), columns=columns, rngs=rngs)
        self.up = Linear(IN, OUT, normal(0.7), rngs=rngs)


class Layers(nnx.Module):
    """A stack of them, and a head."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = make_stack(Layer, L, rngs)
        self.head = Linear(OUT, IN, normal(0.7), bias=False, rngs=rngs)


MODEL: ModelDef[Any] = ModelDef.of(Layers)


def adapted(kernels: tuple[str, ...], **given: Any) -> Any:
    return LoRA(RANK, ALPHA, kernels, **given).adapt(MODEL, list(MODEL.shapes))


def draw(model: Any, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape.shape).astype(np.float32) for path, shape in model.shapes.items()}


def test_each_product_of_each_block_gets_its_own_sum():
    model = adapted(("/(q|v)/kernel$", "up/kernel", "^head/"))
    params = draw(model)
    found = model.merged({path: jnp.asarray(value) for path, value in params.items()})
    doubles = {path: value.astype(np.float64) for path, value in params.items()}
    expected = {path: doubles[path].copy() for path in MODEL.shapes}
    factors = {path: (doubles[f"{ADAPTER}{path}/a"], doubles[f"{ADAPTER}{path}/b"]) for path in
               ("blocks/q/kernel", "blocks/v/kernel", "blocks/up/kernel", "head/kernel")}  # fmt: skip
    for layer in range(L):
        for part, name in ((0, "q"), (2, "v")):
            a, b = (factor[layer] for factor in factors[f"blocks/{name}/kernel"])
            for head in range(HEADS):
                for k in range(K):  # column k of the head, behind those of the products before it
                    column = (head * 3 + part) * K + k
                    expected["blocks/qkv/kernel"][layer, :, column] += ALPHA / RANK * (a @ b)[:, head * K + k]
        a, b = (factor[layer] for factor in factors["blocks/up/kernel"])
        expected["blocks/up/kernel"][layer] += ALPHA / RANK * a @ b
    a, b = factors["head/kernel"]
    expected["head/kernel"] += ALPHA / RANK * a @ b
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
        assert (path in ("blocks/qkv/kernel", "blocks/up/kernel", "head/kernel")) == np.any(found[path] != params[path])
    keys = np.asarray(found["blocks/qkv/kernel"]).reshape(L, IN, HEADS, 3, K)[:, :, :, 1]
    np.testing.assert_array_equal(keys, params["blocks/qkv/kernel"].reshape(L, IN, HEADS, 3, K)[:, :, :, 1])


def test_the_gradient_is_that_of_the_factors():
    model = adapted(("^head/",))
    params, rng = draw(model), np.random.default_rng(2)
    x, y = rng.normal(size=(13, OUT)), rng.normal(size=(13, IN))

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return 0.5 * jnp.sum((model.bind(params).head(jnp.float32(x)) - jnp.float32(y)) ** 2)

    found = jax.grad(loss)({path: jnp.asarray(value) for path, value in params.items()})
    w, a, b = (params[path].astype(np.float64) for path in
               ("head/kernel", f"{ADAPTER}head/kernel/a", f"{ADAPTER}head/kernel/b"))  # fmt: skip
    share = ALPHA / RANK
    rest = x @ (w + share * a @ b) - y
    np.testing.assert_allclose(found[f"{ADAPTER}head/kernel/a"], share * x.T @ rest @ b.T, rtol=2e-4, atol=1e-3)
    np.testing.assert_allclose(found[f"{ADAPTER}head/kernel/b"], share * a.T @ x.T @ rest, rtol=2e-4, atol=1e-3)


def test_it_begins_with_nothing_added_and_a_first_factor_as_wide_as_the_authors():
    model = adapted(("up/kernel", "/q/"))
    params = model.init(jax.random.key(7))
    for path, value in MODEL.init(jax.random.key(7)).items():
        np.testing.assert_array_equal(params[path], value, err_msg=path)
    assert not np.any(params[f"{ADAPTER}blocks/up/kernel/b"])
    wide = np.asarray(params[f"{ADAPTER}blocks/q/kernel/a"])  # (3, 7, 2) draws within 1 / sqrt(7)
    assert wide.shape == (L, IN, RANK) and len(np.unique(wide)) == wide.size
    assert 0.8 / np.sqrt(IN) < np.abs(wide).max() <= 1 / np.sqrt(IN)
    assert {path for path in model.stacked if path.startswith(ADAPTER)} == {
        f"{ADAPTER}blocks/{name}/kernel/{factor}" for name in ("q", "up") for factor in "ab"
    }


def test_a_pattern_may_name_the_kernel_as_a_whole():
    model = adapted(("qkv/kernel$",))
    names = {path.split("/")[-3] for path in model.shapes if path.startswith(ADAPTER)}
    assert names == {"q", "k", "v"}


def test_experts_have_factors_of_their_own():
    settings = {"lora.kernels": "['experts/up/kernel$']", "model": "@llama", "loss": "@autoregressive"}
    program = Tiny(REGISTRIES["adapter"].entry("lora"), Path()).program(**settings)
    shape = program.model.shapes["blocks/mlp/experts/up/kernel"].shape
    assert len(shape) == 4  # blocks, experts
    assert program.model.shapes[f"{ADAPTER}blocks/mlp/experts/up/kernel/a"].shape == (*shape[:-1], 2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kernels": ("attention",)}, r"no kernel's path has 'attention' in it. The model has:\n  blocks/q/kernel"),
        ({"kernels": ("bias",)}, "lora.kernels: no kernel's path has 'bias'"),
        ({"kernels": ("(",)}, r"lora.kernels: '\(' is no regular expression"),
        ({"kernels": ("head/",), "train": ("norm",)}, "lora.train: no parameter's path has 'norm' in it"),
        (
            {"kernels": ("head/",), "rank": 8},
            "lora.rank = 8 is more than the rank of head/kernel, 11 × 7. Take at most 7",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        LoRA(**{"rank": RANK, "alpha": ALPHA, **given}).adapt(MODEL, list(MODEL.shapes))
