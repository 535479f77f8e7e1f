"""Attention in blocks of queries, against softmax written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.nn import blockwise
from lmlab.nn.blockwise import Sight, blockwise_attention

B, H, K = 2, 3, 5


@pytest.fixture(autouse=True, params=[7, 128])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_BLOCK", request.param)


def example(time: int, dtype: str = "float32") -> tuple[jax.Array, ...]:
    return tuple(
        jax.random.normal(key, (B, H, time, K)).astype(dtype) for key in jax.random.split(jax.random.key(0), 3)
    )


def segments(time: int) -> np.ndarray:
    """Two documents and padding in the first row, one document in the second."""
    first = np.repeat([1, 2, 0], [5, time - 8, 3])
    return np.stack([first, np.ones(time, np.int64)])


def written_out(q, k, v, segment_ids: np.ndarray | None):
    time = q.shape[2]
    visible = jnp.tril(jnp.ones((1, time, time), bool))
    if segment_ids is not None:
        visible = visible & (segment_ids[:, :, None] == segment_ids[:, None, :])
    scores = jnp.where(visible[:, None], jnp.einsum("bhtk,bhsk->bhts", q, k) / K**0.5, -jnp.inf)
    return jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(scores), v)


@pytest.mark.parametrize("time", [11, 61])  # at most eight blocks: 61 tokens make blocks of eight, and one of five
@pytest.mark.parametrize("packed", [False, True])
def test_blocks_change_neither_values_nor_gradients(time: int, packed: bool) -> None:
    ids = segments(time) if packed else None
    given = jnp.asarray(ids) if packed else None
    weights = jax.random.normal(jax.random.key(1), (B, H, time, K))

    def both(attend, ids):
        return jax.jit(lambda *qkv: (*jax.vjp(lambda *qkv: attend(*qkv, ids), *qkv)[1](weights), attend(*qkv, ids)))

    mine, other = (
        both(attend, ids)(*example(time)) for attend, ids in ((blockwise_attention, given), (written_out, ids))
    )
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_row_of_padding_is_finite() -> None:
    ids = jnp.zeros((B, 11), jnp.int32)
    gradient = jax.jit(jax.grad(lambda q, k, v: blockwise_attention(q, k, v, ids).sum(), (0, 1, 2)))(*example(11))
    assert all(jnp.isfinite(part).all() for part in gradient)


def test_bfloat16_products_have_a_float32_softmax() -> None:
    q, k, v = example(13, "bfloat16")
    output = jax.jit(blockwise_attention)(q, k, v, None)
    assert output.dtype == jnp.bfloat16
    exact = written_out(*(part.astype(jnp.float32) for part in (q, k, v)), None)
    np.testing.assert_allclose(output.astype(jnp.float32), exact, atol=0.02)
    gradient = jax.eval_shape(jax.grad(lambda q: blockwise_attention(q, k, v, None).astype(jnp.float32).sum()), q)
    assert gradient.dtype == jnp.bfloat16


def test_no_square_matrix_is_kept_for_the_backward_pass() -> None:
    time = 61
    residuals = jax.eval_shape(
        lambda *qkv: jax.vjp(lambda *qkv: blockwise_attention(*qkv, None), *qkv)[1], *example(time)
    )
    assert max(leaf.size for leaf in jax.tree.leaves(residuals)) == B * H * time * K


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("window", "copies"), [(None, 3), (4, 1), (9, 3)])
def test_every_sight_and_shared_heads_have_the_values_and_gradients_written_out(
    causal: bool, window: int | None, copies: int, packed: bool
) -> None:
    time = 23
    ids = segments(time) if packed else np.ones((B, time), np.int64)
    distance = np.arange(time)[:, None] - np.arange(time)
    visible = (ids[:, :, None] == ids[:, None, :]) & (np.abs(distance) < (window or time))
    visible = visible & ((distance >= 0) | (not causal))
    q, k, v = example(time)
    k, v = (part[:, : H // copies] for part in (k, v))
    weights = jax.random.normal(jax.random.key(1), q.shape)

    def plain(q, k, v):
        k, v = (jnp.repeat(part, copies, axis=1) for part in (k, v))
        scores = jnp.where(visible[:, None], jnp.einsum("bhtk,bhsk->bhts", q, k) / K**0.5, -jnp.inf)
        return jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(scores), v)

    def mine(q, k, v):
        return blockwise_attention(q, k, v, jnp.asarray(ids) if packed else None, Sight(causal, window))

    def both(attend):
        return jax.jit(lambda *qkv: (*jax.vjp(attend, *qkv)[1](weights), attend(*qkv)))(q, k, v)

    for a, b in zip(both(mine), both(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_products_outside_a_window_are_not_formed() -> None:
    time = 61

    def flops(sight: Sight) -> float:
        q, k, v = example(time)
        lowered = jax.jit(lambda *qkv: blockwise_attention(*qkv, None, sight)).lower(q, k, v)
        return lowered.compile().cost_analysis()["flops"]

    if time > blockwise._BLOCK:
        assert flops(Sight(True, 2)) < 0.5 * flops(Sight(True)) < 0.5 * flops(Sight(False))
    else:  # one block, of which all is formed
        assert flops(Sight(True)) == pytest.approx(flops(Sight(False)), rel=0.1)
