"""The experiments on text GANs: who is trained when, and what is measured."""

from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.config import build, resolve
from lmlab.training.program import Program

ROOT = Path(__file__).parents[2]
SMALL = (
    "seqgan_oracle.vocab = 11; seqgan_oracle.length = 5; seqgan_oracle.embedding = 3; seqgan_oracle.width = 5;"
    "seqgan_oracle.train_examples = 67; seqgan_oracle.valid_examples = 17; seqgan_oracle.test_examples = 17;"
    "text_gan.width = 5; text_gan.filter_widths = (1, 2); text_gan.filters = (3, 2); adversarial.rollouts = 2;"
    "text_gan.discriminator_embedding = 3; experiment.global_batch_size = 8; experiment.seq_len = 5; mesh.data = 1;"
    "experiment.log_every = 1; experiment.eval_every = 0; oracle_nats.samples = 37"
)


@pytest.mark.long
@pytest.mark.parametrize("name", ["papers/seqgan/seqgan", "gan/gumbel_short"])
def test_each_update_changes_its_own_half_in_its_own_steps(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    phases = "MLE = 2; PRETRAINED = 4; ROUND = 2; experiment.steps = 8"
    made = Program(resolve([f"experiments/{name}.gin"], [SMALL, phases]))
    step, state, moved = made.compile_step(), made.init_state(), []
    for k in range(8):
        before = jax.device_get(state.params)
        state, metrics = step(state, made.partitioner.place(made.data.train.batch(k)))
        after = jax.device_get(state.params)
        moved.append({path.split("/")[0] for path in after if not np.array_equal(after[path], before[path])})
    generator, discriminator = {"generator"}, {"discriminator"}
    both = generator | discriminator
    assert moved == [generator] * 2 + [discriminator] * 2 + [discriminator, both] * 2
    assert metrics["generator/reward"][1] == 8 and metrics["discriminator/accuracy/written"][1] == 8
    measured = build(made.experiment.evaluators[1]).bind(made)(state)
    assert 0 < measured["test/oracle_nats_per_token"] < 20 and measured["test/oracle_impossible"] == 0
