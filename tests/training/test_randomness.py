"""Random keys are a function of seed, stream, step and global row, and of nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.training.randomness import EVALUATION, GENERATION, INIT, STEP, row_keys, stream_key


def bits(keys):
    return np.asarray(jax.random.key_data(keys))


def test_streams_steps_and_seeds_never_share_a_key():
    keys = [stream_key(seed, s, n) for seed in (0, 1) for s in (INIT, STEP, GENERATION, EVALUATION) for n in (0, 1, 2)]
    assert len({tuple(bits(key)) for key in keys}) == len(keys)


def test_a_traced_seed_and_step_give_the_same_key():
    traced = jax.jit(lambda seed, step: stream_key(seed, STEP, step))(5, 7)
    np.testing.assert_array_equal(bits(traced), bits(stream_key(5, STEP, 7)))


def test_a_rows_key_does_not_depend_on_the_rows_beside_it():
    key, rows = stream_key(5, STEP, 7), jnp.arange(13)
    together = bits(row_keys(key, rows))
    np.testing.assert_array_equal(together[3:8], bits(row_keys(key, rows[3:8])))
    assert len({tuple(row) for row in together}) == 13
