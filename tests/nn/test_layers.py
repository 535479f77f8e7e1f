"""Norms, positions, embeddings, the stack: against float64 NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.nn.functional import ModelDef
from lmlab.nn.linear import Embedding, Linear, normal, uniform
from lmlab.nn.norm import LayerNorm, RMSNorm
from lmlab.nn.positions import rotate, rotation
from lmlab.nn.stack import make_stack, run_stack

B, T, H, K, D, L = 2, 5, 3, 4, 7, 11


def test_layer_norm_and_rms_norm_are_their_formulae() -> None:
    x = np.random.default_rng(0).normal(3, 2, (T, D))
    centred = x - x.mean(-1, keepdims=True)
    wanted = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(LayerNorm(D)(jnp.asarray(x, jnp.float32)), wanted, atol=1e-5)
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(RMSNorm(D)(jnp.asarray(x, jnp.float32)), wanted, atol=1e-5)


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_norms_of_bfloat16_are_computed_in_float32(norm: type) -> None:
    x = (1000 + jnp.arange(D)).astype(jnp.bfloat16)[None]
    y = norm(D)(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, norm(D)(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_rotary_products_depend_on_the_distance_only() -> None:
    q, k = (jax.random.normal(jax.random.key(i), (1, H, 1, K)) for i in range(2))

    def product(at_q: int, at_k: int) -> jax.Array:
        turned = (rotate(x, rotation(jnp.array([[at]]), K)) for x, at in ((q, at_q), (k, at_k)))
        return jnp.einsum("bhtk,bhtk->bht", *turned)

    np.testing.assert_allclose(product(9, 4), product(25, 20), atol=1e-5)
    assert not np.allclose(product(9, 4), product(9, 5), atol=1e-3)


def test_rotary_turns_each_pair_by_its_own_frequency() -> None:
    x = np.random.default_rng(1).normal(size=(B, H, T, K))
    positions = np.array([[0, 1, 2, 0, 1], [5, 6, 7, 8, 9]])
    first, second = x[..., : K // 2], x[..., K // 2 :]
    angle = positions[:, None, :, None] * 10_000.0 ** (-np.arange(K // 2) * 2 / K)
    turned = (first + 1j * second) * np.exp(1j * angle)
    wanted = np.concatenate([turned.real, turned.imag], -1)
    got = rotate(jnp.asarray(x, jnp.float32), rotation(jnp.asarray(positions), K))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_an_embedding_projects_by_its_own_transpose() -> None:
    embedding = Embedding(11, D, normal(1.0), rngs=nnx.Rngs(0))
    table = np.asarray(embedding.embedding[...], np.float64)
    tokens = jnp.array([[3, 10, 0]])
    vectors = embedding(tokens, jnp.float32)
    np.testing.assert_array_equal(vectors[0, 1], embedding.embedding[...][10])
    np.testing.assert_allclose(embedding.project(vectors), table[np.asarray(tokens)] @ table.T, atol=1e-5)


def test_logits_of_bfloat16_states_are_summed_in_float32() -> None:
    embedding = Embedding(11, 257, normal(1.0), rngs=nnx.Rngs(0))
    states = jax.random.normal(jax.random.key(1), (3, 257)).astype(jnp.bfloat16)
    got = embedding.project(states)
    table = embedding.embedding[...].astype(jnp.bfloat16)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.asarray(states, np.float64) @ np.asarray(table, np.float64).T, atol=1e-4)


def test_initial_scales_may_be_traced() -> None:
    def init(scale: jax.Array) -> dict[str, jax.Array]:
        return ModelDef.of(lambda rngs: Linear(3, 5, normal(scale), rngs=rngs)).init(jax.random.key(0))

    both = jax.jit(jax.vmap(init))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(both["kernel"][1], 2 * both["kernel"][0], rtol=1e-6)
    entries = uniform(0.5)(jax.random.key(0), (1000,))
    assert -0.5 <= entries.min() < -0.45
    assert 0.45 < entries.max() <= 0.5


def stack() -> Linear:
    return make_stack(lambda rngs: Linear(D, D, normal(0.5), rngs=rngs), L, nnx.Rngs(0))


def run(blocks: Linear, x: jax.Array, scan: bool, remat: str) -> tuple[jax.Array, jax.Array]:
    def body(block: Linear, x: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, scale = at
        x = jnp.tanh(block(x) * scale)
        return x, x.sum() + index

    return run_stack(blocks, body, x, jnp.linspace(0.5, 1.5, L), scan=scan, remat=remat)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_eleven_blocks_run_in_order_however_they_are_run(scan: bool, remat: str) -> None:
    blocks, x = stack(), jnp.ones((T, D))
    kernels = np.asarray(blocks.kernel[...], np.float64)
    assert kernels.shape == (L, D, D)
    y, sums = np.ones((T, D)), []
    for index, scale in enumerate(np.linspace(0.5, 1.5, L)):
        y = np.tanh(y @ kernels[index] * scale)
        sums.append(y.sum() + index)
    got, got_sums = run(blocks, x, scan, remat)
    np.testing.assert_allclose(got, y, atol=1e-5)
    np.testing.assert_allclose(got_sums, sums, atol=1e-4)

    def loss(x: jax.Array, scan: bool, remat: str) -> jax.Array:
        return run(blocks, x, scan, remat)[0].sum()

    np.testing.assert_allclose(jax.grad(loss)(x, scan, remat), jax.grad(loss)(x, True, "none"), atol=1e-5)


def test_blocks_are_initialised_independently() -> None:
    kernels = stack().kernel[...]
    assert not np.allclose(kernels[0], kernels[1])
