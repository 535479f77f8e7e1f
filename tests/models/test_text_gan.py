"""Generators and discriminators of every kind: ids and the one-hots that stand for them, padding, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.models.text_gan import TextGAN
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

B, T, V = 3, 7, 11
SIZES = {
    "width": 10,
    "discriminator_embedding": 5,
    "discriminator_width": 3,
    "filter_widths": (2, 4),
    "filters": (3, 2),
}
TEXTS = jnp.asarray(np.random.default_rng(5).integers(0, V, (B, T)), jnp.int32)


def model_of(**options):
    return ModelDef.of(lambda rngs: TextGAN(V, T, jnp.float32, rngs, **{**SIZES, **options}))


@pytest.mark.parametrize(
    ("generator", "discriminator"), [("lstm", "cnn"), ("gru", "lstm"), ("transformer", "gru")], ids=str
)
def test_one_hots_stand_for_ids_and_padding_is_not_judged(generator, discriminator):
    model = model_of(generator=generator, discriminator=discriminator, heads=2)
    there = (jnp.arange(T) < jnp.array([[T], [4], [1]])).astype(jnp.int32)
    other = jnp.where(there > 0, TEXTS, (TEXTS + 1) % V)

    @jax.jit
    def run(params):
        bound, hot = model.bind(params), jax.nn.one_hot(TEXTS, V)
        judged = [bound.judge(x, segment_ids=there) for x in (TEXTS, hot, other)]
        short = [bound.judge(TEXTS[1:2, :4]), bound.judge(TEXTS[2:, :1])]
        cache = bound.init_cache(B, T)
        _, cache = bound.hidden(hot[:, :3], cache=cache)
        rest, _ = bound.hidden(hot[:, 3:], cache=cache)
        return judged, short, bound.hidden(TEXTS)[0], bound.hidden(hot)[0], rest

    params = drawn(model, 1)
    (ids, hot, other), short, states, same, rest = jax.device_get(run(params))
    np.testing.assert_allclose(hot, ids, atol=1e-5)
    np.testing.assert_array_equal(other, ids)
    np.testing.assert_allclose(np.concatenate(short), ids[1:], atol=1e-5)
    np.testing.assert_allclose(same, states, atol=1e-5)
    np.testing.assert_allclose(rest, states[:, 3:], atol=1e-5)
    assert ids.shape == (B,) and ids.dtype == np.float32 and np.ptp(ids) > 0


def test_it_is_two_networks_that_share_nothing():
    paths = {path.split("/")[0] for path in model_of().shapes}
    assert paths == {"generator", "discriminator"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": (3,)}, "text_gan.filters names 1 .* text_gan.filter_widths 2"),
        ({"generator": "transformer", "heads": 3}, "text_gan.width = 10 does not divide into text_gan.heads = 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        model_of(**options)
