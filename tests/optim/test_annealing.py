"""Weights that rise: the points that their papers name."""

import jax.numpy as jnp
import numpy as np

from lmlab.optim.annealing import Cyclical, Ramp, Sigmoid


def values(schedule, steps):
    return np.array([float(schedule(jnp.int32(step))) for step in steps])


def test_a_ramp_is_straight_from_its_start_to_its_peak():
    ramp = Ramp(rise=10, start=0.1, peak=1.0, begin=3)
    np.testing.assert_allclose(values(ramp, [0, 3, 8, 13, 50]), [0.1, 0.1, 0.55, 1.0, 1.0], rtol=1e-6)


def test_cycles_rise_for_their_first_part_and_stay():
    cyclical = Cyclical(steps=40, cycles=4, rise=0.5)
    one = [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(values(cyclical, range(40)), one * 4, rtol=1e-6)


def test_a_sigmoid_is_half_at_its_middle_and_symmetric_about_it():
    sigmoid = Sigmoid(middle=2500, steepness=0.0025, peak=2.0)
    found = values(sigmoid, [2500, 1700, 3300])
    np.testing.assert_allclose(found, [1.0, 2 / (1 + np.exp(2)), 2 / (1 + np.exp(-2))], rtol=1e-5)
