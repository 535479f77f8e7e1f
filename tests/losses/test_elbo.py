"""The ELBO against float64 NumPy: its terms, what is drawn, and what an annealed or bounded KL costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.losses.elbo import ELBO, divergence, drawn, posterior_of, whole_text
from lmlab.models.text_vae import TextVAE
from lmlab.nn.functional import ModelDef
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.optim.annealing import Ramp

V, T, B, Z = 13, 7, 5, 3
MODEL = ModelDef.of(lambda rngs: TextVAE(V, T, jnp.float32, rngs, latent=Z, embedding=5, width=11, init_scale=0.9))
DRAW = np.random.default_rng(3)
PARAMS = {path: DRAW.normal(0, 0.5, shape.shape).astype(np.float32) for path, shape in MODEL.shapes.items()}
ZERO = jnp.int32(0)


def texts(rows=B):
    """Rows of 7, 5, 3, ... tokens; the last has nothing to predict."""
    draw = np.random.default_rng(5)
    ids, lengths = draw.integers(1, V, (rows, T + 1)), np.maximum(T - 2 * np.arange(rows), 0)
    there = np.arange(T) < lengths[:, None]
    fields = {"tokens": ids[:, :-1] * there, "targets": ids[:, 1:] * there, "segment_ids": there}
    return {**{k: np.int32(v) for k, v in fields.items()}, "weights": np.float32(there)}


def elbo(**options):
    return ELBO({}, 10, **options)


def evaluate(loss, batch, keys=None, step=ZERO):
    function = jax.jit(lambda p, k: loss(MODEL.bind(p), batch, k, step))
    return jax.device_get(function(PARAMS, keys))


def log_softmax(logits):
    wide = np.float64(logits)
    return (
        wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True)) - wide.max(-1, keepdims=True)
    )


def terms(batch, keys):
    """Reconstruction and KL of each row, float64, from the model's posterior and logits at the z that is drawn."""

    @jax.jit
    def run(params):
        model = MODEL.bind(params)
        posterior = posterior_of(model, batch, None)
        z = drawn(posterior, keys)
        states, _ = model.hidden_given(batch["tokens"], z, segment_ids=batch["segment_ids"])
        return posterior, z, model.project(states)

    (mean, log_variance), z, logits = run(PARAMS)
    picked = np.take_along_axis(log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
    mean, log_variance = np.float64(mean), np.float64(log_variance)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    return -(picked * batch["weights"]).sum(1), kl * (batch["weights"].sum(1) > 0)[:, None], np.asarray(z)


def test_an_encoder_reads_the_tokens_and_the_last_target():
    batch = {
        "tokens": jnp.array([[1, 7, 9, 0], [1, 7, 9, 8], [0, 0, 0, 0], [1, 7, 9, 8]]),
        "targets": jnp.array([[7, 9, 2, 0], [7, 9, 8, 2], [0, 0, 0, 0], [7, 9, 8, 5]]),
        "weights": jnp.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]], float),
    }
    there = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    text = whole_text({**batch, "segment_ids": there})
    np.testing.assert_array_equal(text.tokens, [[1, 7, 9, 2, 0], [1, 7, 9, 8, 2], [0] * 5, [1, 7, 9, 8, 0]])
    np.testing.assert_array_equal(text.segment_ids, [[1, 1, 1, 1, 0], [1] * 5, [0] * 5, [1, 1, 1, 1, 0]])
    np.testing.assert_array_equal(whole_text(batch).tokens[1], [1, 7, 9, 8, 2])


def test_the_divergence_of_gaussians_is_the_integral():
    mean, log_variance = DRAW.normal(size=(4, 2)), DRAW.normal(size=(4, 2))
    grid = np.linspace(-30, 30, 60_001)
    variance = np.exp(log_variance)[..., None]
    log_q = -0.5 * ((grid - mean[..., None]) ** 2 / variance + np.log(2 * np.pi * variance))
    log_p = -0.5 * (grid**2 + np.log(2 * np.pi))
    expected = (np.exp(log_q) * (log_q - log_p)).sum(-1) * (grid[1] - grid[0])
    from lmlab.contracts import Gaussian

    np.testing.assert_allclose(divergence(Gaussian(jnp.float32(mean), jnp.float32(log_variance))), expected, rtol=2e-6)


@pytest.mark.parametrize("per", ["token", "text"])
def test_sums_are_those_of_the_rows(per):
    batch, keys = texts(), jax.random.split(jax.random.key(1), B)
    reconstruction, kl, _ = terms(batch, keys_for(keys, "latent"))
    output = evaluate(elbo(beta=0.3, per=per), batch, keys)
    tokens, rows = batch["weights"].sum(), 4
    np.testing.assert_allclose(output.total, (reconstruction + 0.3 * kl.sum(1)).sum(), rtol=1e-5)
    assert output.weight == {"token": tokens, "text": rows}[per]
    expected = {
        "nats": ((reconstruction + kl.sum(1)).sum(), tokens),
        "reconstruction_nats_per_text": (reconstruction.sum(), rows),
        "kl_nats_per_text": (kl.sum(), rows),
        "beta": (0.3 * rows, rows),
    }
    for name, pair in expected.items():
        np.testing.assert_allclose(output.metrics[name], pair, rtol=1e-5, err_msg=name)


def test_an_evaluation_draws_from_the_content_and_charges_all_of_the_kl():
    batch = texts()
    reconstruction, kl, z = terms(batch, content_keys(batch["tokens"]))
    loss = elbo(beta=Ramp(rise=5, peak=0.5), free_bits=9.0, word_dropout=0.9, dropped_id=0)
    np.testing.assert_allclose(evaluate(loss, batch).total, (reconstruction + 0.5 * kl.sum(1)).sum(), rtol=1e-5)
    assert np.unique(z[:4], axis=0).shape == (4, Z)


@pytest.mark.parametrize("of", ["dimension", "text"])
def test_free_bits_cost_the_same_and_have_no_gradient(of):
    batch, keys = texts(), jax.random.split(jax.random.key(1), B)
    reconstruction, kl, _ = terms(batch, keys_for(keys, "latent"))
    limit = float(np.median(kl[:4] if of == "dimension" else kl[:4].sum(1)))
    charged = np.maximum(kl[:4], limit).sum() if of == "dimension" else np.maximum(kl[:4].sum(1), limit).sum()
    found = evaluate(elbo(free_bits=limit, free_bits_of=of), batch, keys).total
    np.testing.assert_allclose(found, reconstruction.sum() + charged, rtol=1e-5)
    all_free = elbo(free_bits=1e6, free_bits_of=of)
    model = MODEL.bind(PARAMS)
    gradient = jax.jit(jax.grad(lambda kl: all_free._charged(kl).sum()))(divergence(posterior_of(model, batch, None)))
    assert not gradient.any()


def test_beta_follows_the_step():
    batch, keys = texts(), jax.random.split(jax.random.key(1), B)
    loss = elbo(beta=Ramp(rise=4, start=0.1, peak=0.5))
    found = [evaluate(loss, batch, keys, jnp.int32(step)).metrics["beta"][0] / 4 for step in (0, 2, 9)]
    np.testing.assert_allclose(found, [0.1, 0.3, 0.5], rtol=1e-6)


def test_words_are_dropped_at_the_rate_but_never_the_first_and_never_what_the_encoder_reads():
    rows = 2000
    tokens = np.full((rows, T), 5, np.int32)
    read = elbo(word_dropout=0.3, dropped_id=1)._with_words_dropped(tokens, jax.random.split(jax.random.key(2), rows))
    gone = np.asarray(read) == 1
    assert not gone[:, 0].any() and ((read == 5) | gone).all()
    np.testing.assert_allclose(gone[:, 1:].mean(), 0.3, atol=4 * np.sqrt(0.3 * 0.7 / (rows * (T - 1))))
    batch, keys = texts(), jax.random.split(jax.random.key(1), B)
    whole, dropped = (evaluate(elbo(word_dropout=r, dropped_id=1), batch, keys).metrics for r in (0.0, 0.9))
    assert whole["kl_nats_per_text"] == dropped["kl_nats_per_text"]
    assert whole["reconstruction_nats_per_text"] != dropped["reconstruction_nats_per_text"]


def test_dropping_words_needs_an_id_for_them():
    assert ELBO({"unknown": 3, "mask": 4}, 10, word_dropout=0.1)._dropped == 3
    assert ELBO({"mask": 4}, 10, word_dropout=0.1)._dropped == 4
    with pytest.raises(ConfigError, match=r"elbo.dropped_id"):
        elbo(word_dropout=0.1)
