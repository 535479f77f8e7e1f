"""Schedules against their closed forms in float64, with plain and with traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.optim.schedules import Constant, Cosine, Linear, ReciprocalSquareRoot, WarmupStableDecay, value_at

N, W, PEAK = 101, 13, 0.7
s = np.arange(N, dtype=np.float64)
RISE = np.minimum(1, (s + 1) / W)
DONE = np.clip((s - W) / (N - 1 - W), 0, 1)

CLOSED_FORMS = {
    "constant": (Constant(PEAK, W), PEAK * RISE),
    "cosine": (Cosine(N, PEAK, W, final=0.2), PEAK * RISE * (0.2 + 0.8 * (1 + np.cos(np.pi * DONE)) / 2)),
    "linear": (Linear(N, PEAK, W, final=0.3), PEAK * RISE * (1 - 0.7 * DONE)),
    "rsqrt": (
        ReciprocalSquareRoot(N, PEAK, W, timescale=17),
        PEAK * RISE * np.sqrt(17 / (17 + np.maximum(s - W, 0))),
    ),
    "rsqrt of the transformer": (
        ReciprocalSquareRoot(N, PEAK, W),
        PEAK * np.where(s < W, (s + 1) / W, np.sqrt(W / np.maximum(s, 1))),
    ),
    "warmup_stable_decay": (
        WarmupStableDecay(N, PEAK, W, decay=0.25, final=0.1),
        PEAK * RISE * (1 - 0.9 * np.clip((s - (N - 1 - 0.25 * N)) / (0.25 * N), 0, 1)),
    ),
    "rsqrt with cooldown": (
        ReciprocalSquareRoot(N, PEAK, W, cooldown=19),
        PEAK * np.where(s < W, (s + 1) / W, np.sqrt(W / np.maximum(s, 1))) * np.clip((N - 1 - s) / 19, 0, 1),
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_schedule_is_its_closed_form(name):
    schedule, expected = CLOSED_FORMS[name]
    got = jax.vmap(schedule)(jnp.arange(N))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_first_step_learns_and_the_warm_up_ends_at_the_peak(name):
    schedule = CLOSED_FORMS[name][0]
    assert float(schedule(jnp.int32(0))) == pytest.approx(PEAK / W)
    assert float(schedule(jnp.int32(W - 1))) == pytest.approx(PEAK)


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear, ReciprocalSquareRoot, WarmupStableDecay])
def test_a_population_of_traced_numbers_is_each_schedule_alone(kind):
    peaks, warmups, steps = [0.1, 0.2, 0.5], [3, 7, 0], [29, 31, 37]
    sized = kind is not Constant

    def at(peak, warmup, length, step):
        return (kind(length, peak, warmup) if sized else kind(peak, warmup))(step)

    together = jax.jit(jax.vmap(at, (0, 0, 0, None)))(jnp.array(peaks), jnp.array(warmups), jnp.array(steps), 11)
    alone = [float(at(*numbers, jnp.int32(11))) for numbers in zip(peaks, warmups, steps, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize(("kind", "final"), [(Cosine, 0.25), (Linear, 0.25), (WarmupStableDecay, 0.25)])
def test_the_last_step_has_the_final_fraction(kind, final):
    assert float(kind(N, PEAK, W, final=final)(jnp.int32(N - 1))) == pytest.approx(PEAK * final, rel=1e-6)


def test_without_warm_up_the_first_step_is_at_the_peak():
    for schedule in (Constant(PEAK), Cosine(N, PEAK), Linear(N, PEAK), WarmupStableDecay(N, PEAK)):
        assert float(schedule(jnp.int32(0))) == pytest.approx(PEAK)


def test_a_run_of_one_step_is_finite():
    for schedule in (Cosine(1, PEAK), Linear(1, PEAK), ReciprocalSquareRoot(1, PEAK, 0), WarmupStableDecay(1, PEAK)):
        assert np.isfinite(float(schedule(jnp.int32(0)))), schedule


def test_a_number_is_a_constant_schedule():
    assert float(value_at(0.5, jnp.int32(7))) == 0.5
    assert float(value_at(jnp.float32(0.5), jnp.int32(7))) == 0.5
