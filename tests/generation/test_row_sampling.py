"""Sampling with a row's own numbers against the sampler `sample`, which has the same ones for all rows, and NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.generation.row_sampling import Numbers, drawn, keep_top_k, keep_top_p
from lmlab.generation.samplers import Sample
from lmlab.training.randomness import GENERATION, row_keys, stream_key

B, V = 7, 61
DRAW = np.random.default_rng(2)
LOGITS = DRAW.normal(size=(B, V)).astype(np.float32) * 3
SAMPLES = [
    Sample(0.0),
    Sample(1.0),
    Sample(0.7, top_k=4),
    Sample(1.3, top_p=0.6),
    Sample(2.0, min_p=0.2),
    Sample(1.1, top_k=6, top_p=0.8, min_p=0.05),
    Sample(1e-30, top_k=1),
]


def numbers(samples: list[Sample], seeds: np.ndarray, choices: np.ndarray) -> Numbers:
    def column(values: list[float], dtype: type) -> np.ndarray:
        return np.array(values, dtype)

    return Numbers(
        column([s.temperature for s in samples], np.float32), column([s.top_k or V for s in samples], np.int32),
        column([s.top_p or 1.0 for s in samples], np.float32), column([s.min_p or 0.0 for s in samples], np.float32),
        seeds, choices,
    )  # type: ignore[arg-type]  # fmt: skip


def test_rows_of_different_numbers_draw_what_the_sampler_draws_for_each() -> None:
    seeds, choices, places = (DRAW.integers(0, 99, B).astype(t) for t in (np.uint32, np.int32, np.int32))
    run = jax.jit(drawn)
    for turn in range(len(SAMPLES)):
        samples = [SAMPLES[(row + turn) % len(SAMPLES)] for row in range(B)]
        found = np.asarray(run(LOGITS, numbers(samples, seeds, choices), places))
        for row, sample in enumerate(samples):
            keys = row_keys(stream_key(jnp.uint32(seeds[row]), GENERATION), choices[row][None])
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, places[row])
            assert found[row] == sample(LOGITS[row][None], keys)[0], (row, sample)


@pytest.mark.parametrize("ties", [False, True])
def test_what_is_kept_is_what_sorting_keeps(ties: bool) -> None:
    logits = np.round(LOGITS) if ties else LOGITS
    logits = logits - logits.max(1, keepdims=True)
    k, p = np.array([1, 2, 5, V - 1, V, 9, 30]), np.array([0.01, 0.3, 0.5, 0.9, 0.999, 0.7, 0.1])
    kept_k = np.isfinite(jax.jit(keep_top_k)(logits, k))
    kept_p = np.isfinite(jax.jit(keep_top_p)(logits, p.astype(np.float32)))
    for row in range(B):
        order = np.sort(logits[row])[::-1].astype(np.float64)
        np.testing.assert_array_equal(kept_k[row], logits[row] >= order[k[row] - 1])
        mass = np.cumsum(np.exp(order)) / np.exp(order).sum()
        np.testing.assert_array_equal(kept_p[row], logits[row] >= order[np.searchsorted(mass, p[row])])
