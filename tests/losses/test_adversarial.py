"""Both sides of a text GAN against the enumeration of all texts of a tiny vocabulary."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.losses.adversarial import Adversarial
from lmlab.losses.writing import drawn, relaxed, values
from lmlab.models.text_gan import TextGAN
from lmlab.nn.functional import ModelDef
from lmlab.nn.randomness import keys_for

V, T = 3, 3
ALL = np.array(list(itertools.product(range(V), repeat=T)), np.int32)
ZERO = jnp.int32(0)


def model_of(**options):
    sizes = {"width": 5, "discriminator_embedding": 2, "filter_widths": (1, 2), "filters": (3, 2), **options}
    return ModelDef.of(lambda rngs: TextGAN(V, T, jnp.float32, rngs, **sizes))


def params_of(model):
    draw = np.random.default_rng(3)
    return {path: draw.normal(0, 0.9, shape.shape).astype(np.float32) for path, shape in model.shapes.items()}


MODEL = model_of()
PARAMS = params_of(MODEL)
GENERATOR = [path for path in PARAMS if path.startswith("generator/")]


def law(model, params, first):
    """-log p of the tokens of all texts after `first`, (27, T)."""
    inputs = jnp.concatenate((jnp.full((len(ALL), 1), first), ALL[:, :-1]), 1)
    return -jnp.take_along_axis(jax.nn.log_softmax(model.bind(params).logits(inputs)), ALL[..., None], -1)[..., 0]


def rewards(model, params, there):
    read = jnp.broadcast_to(jnp.asarray(there), ALL.shape)
    return jax.nn.sigmoid(model.bind(params).judge(ALL, segment_ids=read))


def batch_of(rows, there=(1, 1, 1), seed=5):
    ids = np.random.default_rng(seed).integers(0, V, (rows, T)).astype(np.int32)
    tokens = np.concatenate((np.full((rows, 1), 1, np.int32), ids[:, :-1]), 1)
    weights = np.broadcast_to(np.array(there, np.float32), (rows, T))
    return {"tokens": jnp.asarray(tokens), "targets": jnp.asarray(ids), "weights": jnp.asarray(weights)}


def flat(tree):
    return np.concatenate([np.ravel(tree[path]) for path in GENERATOR]).astype(np.float64)


@pytest.mark.parametrize(("baseline", "there"), [("none", (1, 1, 1)), ("previous", (1, 1, 0))])
def test_the_policy_gradient_is_that_of_the_expected_reward_on_average(baseline, there):
    blocks, rows = 40, 256
    loss = Adversarial(10, side="generator", rollouts=2, baseline=baseline)
    batch = batch_of(rows, there)

    @jax.jit
    def estimates(params, keys):
        one = jax.grad(lambda p, k: loss(MODEL.bind(p), batch, k, ZERO).total / rows)
        return jax.lax.map(lambda k: one(params, k), keys)

    @jax.jit
    def exact(params):
        mean = lambda p: (jnp.exp(-law(MODEL, p, 1).sum(1)) * rewards(MODEL, PARAMS, there)).sum()  # noqa: E731
        return jax.grad(mean)(params)

    found = jax.device_get(estimates(PARAMS, jax.random.split(jax.random.key(7), (blocks, rows))))
    assert not any(found[path].any() for path in PARAMS if path not in GENERATOR)
    samples = np.stack([flat({path: value[b] for path, value in found.items()}) for b in range(blocks)])
    mean, error = samples.mean(0), samples.std(0, ddof=1) / np.sqrt(blocks)
    expected = -flat(jax.device_get(exact(PARAMS)))
    assert np.linalg.norm(error) < 0.12 * np.linalg.norm(expected)  # a gradient of another law would be seen
    assert (np.abs(mean - expected) < 5 * error + 1e-7).all()


@pytest.mark.parametrize("generator", ["lstm", "transformer"])
def test_rollouts_have_the_mean_reward_of_all_texts_that_begin_so(generator):
    model = model_of(generator=generator, width=6, heads=2)
    params, count = params_of(model), 3000
    texts = jnp.asarray(ALL[[5, 22]])

    @jax.jit
    def run(params):
        bound = model.bind(params)
        keys = jax.random.split(jax.random.key(11), 2)
        reward = lambda y: jax.nn.sigmoid(bound.judge(y))  # noqa: E731
        found = values(bound, jnp.array([1, 2]), texts, keys, reward, rollouts=count, begin=0)
        return found, [law(model, params, first) for first in (1, 2)], rewards(model, params, (1, 1, 1))

    found, laws, reward = jax.device_get(run(params))
    assert found.shape == (2, T) and found.std() > 0.01
    for row, nats in enumerate(laws):
        for begun in range(T):
            same = (ALL[:, :begun] == np.asarray(texts)[row, :begun]).all(1)
            weights = np.exp(-np.float64(nats[same, begun:]).sum(1))
            np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
            mean = (weights * reward[same]).sum()
            error = np.sqrt((weights * (reward[same] - mean) ** 2).sum() / count)
            # Where a beginning has one likely end, 3,000 completions may hold none of the others.
            assert abs(found[row, begun] - mean) < 4.5 * error + 1e-4


def test_texts_are_drawn_from_the_law_and_row_by_row():
    rows = 4000
    keys = jax.random.split(jax.random.key(13), rows)
    write = jax.jit(lambda p, keys: drawn(MODEL.bind(p), jnp.ones(len(keys), jnp.int32), T, keys))
    texts = np.asarray(write(PARAMS, keys))
    np.testing.assert_array_equal(write(PARAMS, keys[17:20]), texts[17:20])
    probability = np.exp(-np.float64(law(MODEL, PARAMS, 1)).sum(1))
    counts = np.bincount(texts @ V ** np.arange(T)[::-1], minlength=len(ALL))
    error = np.sqrt(rows * probability * (1 - probability))
    assert (np.abs(counts - rows * probability) < 4.5 * error + 1).all() and counts.max() < 0.9 * rows


def test_the_discriminator_has_the_cross_entropy_of_real_and_written_texts():
    rows = 7
    batch, keys = batch_of(rows), jax.random.split(jax.random.key(17), rows)
    batch["weights"] = batch["weights"] * (jnp.arange(T) < jnp.array([3, 2, 3, 1, 0, 3, 3])[:, None])
    loss = Adversarial(10, l2=0.3)

    @jax.jit
    def run(params):
        model, there = MODEL.bind(params), (batch["weights"] > 0).astype(jnp.int32)
        written = drawn(model, batch["tokens"][:, 0], T, keys_for(keys, "texts"))
        logits = [
            model.judge(texts, segment_ids=there, keys=keys_for(keys, f"judging {name}"))
            for name, texts in (("real", batch["targets"]), ("written", written))
        ]
        (_, output), gradient = jax.value_and_grad(
            lambda p: (lambda o: (o.total, o))(loss(MODEL.bind(p), batch, keys, ZERO)), has_aux=True
        )(params)
        return logits, output, gradient

    logits, output, gradient = jax.device_get(run(PARAMS))
    real, written = (np.float64(x)[np.arange(rows) != 4] for x in logits)  # row 4 fills up the batch
    nats = np.log1p(np.exp(-real)).sum() + np.log1p(np.exp(written)).sum()
    last = [np.float64(PARAMS[f"discriminator/output/{name}"]) for name in ("kernel", "bias")]
    penalty = 0.3 / 2 * sum((x**2).sum() for x in last)
    np.testing.assert_allclose(output.total, nats + 12 * penalty, rtol=1e-5)
    np.testing.assert_allclose(output.weight, 12)
    np.testing.assert_allclose(output.metrics["nats"], (nats, 12), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["accuracy/real"], ((real > 0).sum(), 6))
    np.testing.assert_allclose(output.metrics["accuracy/written"], ((written < 0).sum(), 6))
    assert not any(gradient[path].any() for path in GENERATOR)
    assert all(gradient[path].any() for path in PARAMS if path not in GENERATOR)


def test_relaxed_texts_are_one_hots_at_low_temperature_and_drawn_from_the_law():
    rows = 2000
    keys = jax.random.split(jax.random.key(19), rows)
    first = jnp.ones(rows, jnp.int32)

    @jax.jit
    def write(params, temperature):
        return [relaxed(MODEL.bind(params), first, T, keys, temperature, feed) for feed in ("relaxed", "drawn")]

    hard, same = (np.asarray(x) for x in write(PARAMS, jnp.float32(1e-4)))
    np.testing.assert_allclose(hard.sum(-1), 1, rtol=1e-5)
    assert (hard.max(-1) > 0.999).mean() > 0.999  # two noisy logits may be closer than 1e-3 of a nat
    assert (hard.argmax(-1) == same.argmax(-1)).all(1).mean() > 0.998
    probability = np.exp(-np.float64(law(MODEL, PARAMS, 1)).sum(1))
    counts = np.bincount(same.argmax(-1) @ V ** np.arange(T)[::-1], minlength=len(ALL))
    assert (np.abs(counts - rows * probability) < 4.5 * np.sqrt(rows * probability) + 1).all()
    soft, _ = write(PARAMS, jnp.float32(5.0))
    assert np.asarray(soft).max(-1).mean() < 0.6


@pytest.mark.parametrize("feed", ["relaxed", "drawn"])
def test_the_gradient_through_relaxed_texts_is_finite_and_that_of_differences(feed):
    batch, keys = batch_of(11), jax.random.split(jax.random.key(23), 11)

    @jax.jit
    def total(params, temperature):
        loss = Adversarial(10, side="generator", estimator="gumbel", temperature=temperature, feed=feed)
        return loss(MODEL.bind(params), batch, keys, ZERO).total

    gradient = jax.jit(jax.grad(total))
    sharp = gradient(PARAMS, jnp.float32(0.01))
    assert all(np.isfinite(sharp[path]).all() for path in sharp)
    smooth = jax.device_get(gradient(PARAMS, jnp.float32(2.0)))
    assert all(smooth[path].any() for path in GENERATOR)
    if feed == "relaxed":  # with drawn ones, the loss jumps where another id is drawn
        step = 3e-3 / np.linalg.norm(flat(smooth))
        up, down = (
            total({p: v + s * step * smooth[p] * (p in GENERATOR) for p, v in PARAMS.items()}, jnp.float32(2.0))
            for s in (1, -1)
        )
        np.testing.assert_allclose((up - down) / (2 * step), (flat(smooth) ** 2).sum(), rtol=0.02)
