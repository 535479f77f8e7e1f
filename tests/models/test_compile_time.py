"""How long a stack takes to compile does not grow with its depth."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import pytest

from lmlab.losses.autoregressive import Autoregressive
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef

V, T, B = 257, 64, 8


def seconds(layers: int) -> float:
    """Of this process, to trace and compile the gradient; the least of three, for other processes disturb it."""

    def once() -> float:
        jax.clear_caches()
        model = ModelDef.of(lambda rngs: GPT(V, T, jnp.float32, rngs, width=64, heads=4, layers=layers))
        ids = jax.ShapeDtypeStruct((B, T), jnp.int32)
        batch = {"tokens": ids, "targets": ids, "weights": jax.ShapeDtypeStruct((B, T), jnp.float32)}
        start = time.process_time()
        loss = jax.jit(jax.grad(lambda p, batch: Autoregressive()(model.bind(p), batch, None, jnp.int32(0)).total))
        loss.lower(model.shapes, batch).compile()
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.long
def test_24_layers_compile_as_fast_as_6() -> None:
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        seconds(6)  # what the first compilation of a process does beside
        few, many = seconds(6), seconds(24)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    print(f"6 layers: {few:.2f} s; 24 layers: {many:.2f} s; ratio {many / few:.2f}")
    assert many < 1.3 * few
