"""Texts of latent vectors: what the decoder would write if it read everything anew at each token."""

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.generation.decoding import Decoder
from lmlab.generation.prior_samples import Told, prior, width
from lmlab.generation.samplers import Greedy
from lmlab.models.text_vae import TextVAE
from lmlab.nn.functional import ModelDef

V, Z, N = 13, 3, 5
MODEL = ModelDef.of(lambda rngs: TextVAE(V, 7, jnp.float32, rngs, latent=Z, embedding=5, width=11, layers=2))
DRAW = np.random.default_rng(3)
PARAMS = {path: DRAW.normal(0, 0.8, shape.shape).astype(np.float32) for path, shape in MODEL.shapes.items()}


def test_the_prior_is_normal_and_each_vector_is_its_own():
    found = np.asarray(prior(2000, Z, seed=4))
    np.testing.assert_allclose(found.mean(0), 0, atol=4 / np.sqrt(2000))
    np.testing.assert_allclose(np.cov(found.T), np.eye(Z), atol=0.15)
    np.testing.assert_array_equal(prior(7, Z, seed=4), found[:7])
    assert not np.array_equal(prior(7, Z, seed=5), found[:7])


def test_the_width_of_the_latent_is_found():
    assert width(MODEL) == Z


def test_every_row_is_written_of_its_own_vector():
    latents = prior(N, Z, seed=4) * 3
    decoder = Decoder(Told(MODEL, latents), Greedy(), end_of_text=None)
    written = decoder.complete(PARAMS, [np.array([2], np.int32)] * N, length=6)

    @jax.jit
    def logits(params, tokens):
        model = MODEL.bind(params)
        return model.project(model.hidden_given(tokens, latents)[0])

    tokens = np.concatenate([np.full((N, 1), 2), np.stack(written)], 1).astype(np.int32)
    np.testing.assert_array_equal(np.asarray(logits(PARAMS, tokens))[:, :-1].argmax(-1), tokens[:, 1:])
    assert len({tuple(row) for row in tokens.tolist()}) > 1
