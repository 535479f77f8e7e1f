"""The files of experiments/optim: each resolves, as a part of an experiment, to an optimizer that updates."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import build, resolve

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "optim"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.gin")), ids=lambda file: file.stem)
def test_the_file_is_an_optimizer(file):
    rest = ["model = @gpt", "loss = @autoregressive", "dataset = @random_tokens", "steps = 31",
            "global_batch_size = 2", "seq_len = 3"]  # fmt: skip
    spec = resolve([str(file)], [f"experiment.{line}" for line in rest]).spec
    optimizer = build(spec.kwargs["optimizer"], steps=31)
    rule = optimizer.transformation({"kernel": "kernel", "bias": "bias"})
    params = {"kernel": jnp.ones((2, 5, 7)), "bias": jnp.ones((2, 7))}
    updates, _ = rule.update(params, rule.init(params), params, step=jnp.int32(0))
    assert all(np.all(np.isfinite(update)) and np.any(update != 0) for update in updates.values())
