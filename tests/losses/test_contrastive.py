"""SimCSE's loss: which rows are told from which, against torch's cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import PooledBag
from flax import nnx

from lmlab.errors import ConfigError
from lmlab.losses.contrastive import Contrastive
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

B, T, V, G = 6, 7, 11, 3


def test_each_text_is_told_from_those_of_its_group_that_count() -> None:
    torch = pytest.importorskip("torch")
    loss, model = Contrastive(group=G, temperature=0.2), nnx.jit(lambda: PooledBag(V, nnx.Rngs(0), width=5))()
    there = np.arange(T) < np.array([[T], [4], [2], [5], [6], [0]])
    weights = np.array([1, 1, 0, 1, 1, 0], np.float32)
    batch = {
        "tokens": jnp.asarray(np.random.default_rng(0).integers(0, V, (B, T)) * there),
        "segment_ids": jnp.asarray(there.astype(np.int32)),
        "type_ids": jnp.zeros((B, T), jnp.int32),
        "weights": jnp.asarray(weights),
    }
    keys = jax.random.split(jax.random.key(0), B)
    run = jax.jit(lambda keys: (loss(model, batch, keys, jnp.int32(0)), loss.vectors(model, batch, keys)))
    output, (first, second) = run(keys)
    wanted, right = 0.0, 0
    for g in (0, G):
        rows = [b for b in range(g, g + G) if weights[b]]
        one, other = (torch.tensor(np.asarray(x)[rows], dtype=torch.float64) for x in (first, second))
        scores = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=-1) / 0.2
        wanted += torch.nn.functional.cross_entropy(scores, torch.arange(len(rows)), reduction="sum").item()
        right += int((scores.argmax(1) == torch.arange(len(rows))).sum())
    assert float(output.total) == pytest.approx(wanted, rel=1e-5)
    assert float(output.weight) == 4
    assert float(output.metrics["accuracy"][0]) == right
    assert (np.asarray(first) != np.asarray(second))[:5].any(1).all()  # other dropout
    np.testing.assert_allclose(np.square(first).sum(1)[:5], 1, rtol=1e-5)
    assert np.isfinite(jax.tree.leaves(output)).all()
    distance = (np.square(np.asarray(first) - np.asarray(second)).sum(1) * weights).sum()
    assert float(output.metrics["alignment"][0]) == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize("settings", [{"mesh.data": 8}, {"microbatches": 8}, {"global_batch_size": 14}])
def test_a_layout_that_would_split_a_group_is_refused(tmp_path, settings) -> None:
    tiny = Tiny(REGISTRIES["loss"].entry("contrastive"), tmp_path)
    with pytest.raises(ConfigError, match=r"compares blocks of 4 rows.* is no multiple of 4"):
        tiny.program(**{"contrastive.group": 4, **settings})
    tiny.program(**{"contrastive.group": 4, "microbatches": 4})
