"""What muP is for: the learning rate that is best for a narrow model is best for one eight times as wide."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.parallel.mesh import Mesh
from lmlab.training.program import Program

GIN = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @hmm_source
experiment.optimizer = @adamw
experiment.steps = 1000
experiment.global_batch_size = 8
experiment.seq_len = 64
experiment.compute_dtype = 'float32'
experiment.clip_norm = None
adamw.learning_rate = 0.01
adamw.weight_decay = 0.0
gpt.layers = 2
gpt.heads = 4
"""
NARROW, WIDE = 16, 128
RATES = 2.0 ** np.arange(-10, -3)
STEPS, LAST = 60, 10


def losses(program: Program, width: int) -> np.ndarray:
    """The mean loss of the last steps, nats per token, at every rate."""

    def step(state, batch, rate):
        new, metrics = program.at({"model.width": width, "optimizer.learning_rate": rate}).step(state, batch)
        return new, metrics["loss"][0] / metrics["loss"][1]

    compiled, member = jax.jit(step), program.at({"model.width": width})
    start, found = jax.jit(member.init)(member.key), []
    batches = [member.data.train.batch(k) for k in range(STEPS)]
    for rate in RATES:
        state, curve = start, []
        for batch in batches:
            state, loss = compiled(state, batch, jnp.float32(rate))
            curve.append(float(loss))
        found.append(np.mean(curve[-LAST:]))
    return np.nan_to_num(np.asarray(found), nan=np.inf)


@pytest.mark.long
def test_the_best_rate_stays_under_mup_and_moves_without_it(tmp_path):
    path, best, found = tmp_path / "mine.gin", {}, {}
    path.write_text(GIN)
    for name, text in (("standard", []), ("mup", [f"gpt.mup_base_width = {NARROW}"])):
        program = Program(resolve([str(path)], text), partitioner=Mesh(data=1))
        for width in (NARROW, WIDE):
            found[name, width] = losses(program, width)
            best[name, width] = int(found[name, width].argmin())
            print(
                name, width, np.round(found[name, width], 4).tolist(), f"best 2^{np.log2(RATES[best[name, width]]):g}"
            )
    assert best["mup", NARROW] == best["standard", NARROW]  # the same model
    assert abs(best["mup", WIDE] - best["mup", NARROW]) <= 1
    assert best["standard", WIDE] <= best["standard", NARROW] - 2
    # Who takes the narrow model's rate for the wide one loses little under muP, and more without it.
    at = best["mup", NARROW]
    lost = {name: found[name, WIDE][at] - found[name, WIDE].min() for name in ("standard", "mup")}
    assert lost["mup"] < 0.02 < lost["standard"], lost
