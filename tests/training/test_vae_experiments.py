"""The experiments on posterior collapse: configurations that fit together, and who is trained when."""

from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.training.program import Program

ROOT = Path(__file__).parents[2]
SMALL = (
    "vae_synthetic.words = 11; vae_synthetic.embedding = 3; vae_synthetic.width = 7; vae_synthetic.train_examples = 67;"
    "vae_synthetic.valid_examples = 17; vae_synthetic.test_examples = 17; text_vae.width = 5; text_vae.embedding = 3;"
    "text_vae.init_scale = 0.5; experiment.log_every = 1; mesh.data = 1"
)


def program(name, monkeypatch, *overrides):
    monkeypatch.chdir(ROOT)
    return Program(resolve([f"experiments/papers/posterior_collapse/{name}.gin"], [SMALL, *overrides]))


@pytest.mark.parametrize("name", ["basic", "annealed"])
def test_the_plain_experiments_are_one_update(name, monkeypatch):
    made = program(name, monkeypatch)
    assert made.recipe.parts == () and made.experiment.steps == 50_000
    found = jax.eval_shape(made.step, made.abstract_state, made.abstract_batch)[1]
    assert {"loss", "kl_nats_per_text", "beta"} <= set(found)


def test_aggressive_training_updates_the_decoder_rarely_and_then_both(monkeypatch):
    made = program("aggressive", monkeypatch, "INNER = 3; BURN_IN = 6; experiment.steps = 9")
    step, state, moved = made.compile_step(), made.init_state(), []
    for k in range(8):
        before = jax.device_get(state.params)
        state, _ = step(state, made.partitioner.place(made.data.train.batch(k)))
        after = jax.device_get(state.params)
        moved.append({path.split("/")[0] for path in after if not np.array_equal(after[path], before[path])})
    encoder, both = {"encoder"}, {"encoder", "decoder"}
    assert moved == [encoder, encoder, both, encoder, encoder, both, both, both]
