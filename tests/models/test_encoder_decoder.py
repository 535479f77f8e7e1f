"""Encoder-decoders: the laws of whatever writes from left to right, and what the source does to it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import EncoderDecoder
from lmlab.errors import ConfigError
from lmlab.models.encoder_decoder import T5, TransformerEncoderDecoder
from lmlab.nn.functional import ModelDef
from lmlab.testing.of_models import moved

V, T, S, B, D, H, L = 17, 7, 11, 3, 12, 3, 2
KINDS: dict[str, tuple[type[TransformerEncoderDecoder], dict[str, Any]]] = {
    "vaswani": (TransformerEncoderDecoder, {}),
    "pre_norm": (TransformerEncoderDecoder, {"arrangement": "pre_norm", "positions": "learned", "decoder_layers": 3}),
    "rotary": (TransformerEncoderDecoder, {"positions": "rotary"}),
    "t5": (T5, {"head_width": 5, "buckets": 6, "max_distance": 5}),
}


def model_of(name: str, **given: Any) -> ModelDef[TransformerEncoderDecoder]:
    kind, settings = KINDS[name]
    sizes = {"width": D, "heads": H, "layers": L, **settings, **given}
    return ModelDef.of(lambda rngs: kind(V, T, S, jnp.float32, rngs, **sizes))


def tokens(time: int, seed: int = 1) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (B, time), 0, V)


THERE = (jnp.arange(S) < jnp.array([[S], [S - 4], [1]])).astype(jnp.int32)


@functools.cache
def compiled(name: str) -> Any:
    """States of all targets from `decode`; and, where it is asked, in pieces with a cache."""
    model = model_of(name)
    params = moved(model)

    @functools.partial(jax.jit, static_argnums=3)
    def read(source: jax.Array, there: jax.Array, target: jax.Array, in_pieces: bool = False) -> tuple[Any, ...]:
        bound = model.bind(params)
        memory = bound.encode_source(source, segment_ids=there)
        if not in_pieces:
            return (bound.decode(target, memory)[0],)
        cache, pieces = bound.init_decoding(memory, T), []
        for piece in jnp.split(target, [1, 3], axis=1):
            states, cache = bound.decode(piece, memory, cache=cache)
            pieces.append(states)
        return bound.decode(target, memory)[0], jnp.concatenate(pieces, 1), cache.target.length

    return read


@pytest.fixture(
    params=["vaswani", "t5", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("pre_norm", "rotary"))]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.long  # the conformance suite holds encoder_decoder and t5 to this; here are their variations
def test_reading_in_pieces_is_reading_at_once(name: str) -> None:
    whole, pieces, length = compiled(name)(tokens(S), THERE, tokens(T, 2), True)
    np.testing.assert_allclose(pieces, whole, atol=2e-5, rtol=2e-5)
    np.testing.assert_array_equal(length, [T] * B)


def test_it_never_looks_ahead_nor_at_padding_but_at_all_of_the_source(name: str) -> None:
    source, target = tokens(S), tokens(T, 2)
    read = compiled(name)
    states = read(source, THERE, target)[0]
    np.testing.assert_array_equal(read(source, THERE, target.at[:, 4:].add(1) % V)[0][:, :4], states[:, :4])
    np.testing.assert_array_equal(read(jnp.where(THERE == 1, source, (source + 1) % V), THERE, target)[0], states)
    for place in (0, S - 1):
        changed = read(source.at[:, place].add(1) % V, THERE, target)[0]
        sees = np.asarray(THERE[:, place]) == 1
        assert (np.abs(changed - states).max(-1) > 1e-5)[sees].all()


@pytest.mark.long
def test_encoder_and_decoder_drop_differently_but_by_row() -> None:
    model = model_of("vaswani", dropout=0.4)
    params, keys = moved(model), jax.random.split(jax.random.key(3), B)

    @functools.partial(jax.jit, static_argnums=3)
    def read(source: jax.Array, target: jax.Array, keys: jax.Array, dropped: bool = True) -> jax.Array:
        bound = model.bind(params)
        given = keys if dropped else None
        return bound.decode(target, bound.encode_source(source, keys=given), keys=given)[0]

    source, target = tokens(S), tokens(T, 2)
    both = read(source, target, keys)
    np.testing.assert_allclose(both[1:2], read(source[1:2], target[1:2], keys[1:2]), atol=1e-5)
    assert not np.allclose(both, read(source, target, keys, False), atol=1e-2)


def test_it_is_an_encoder_decoder_with_one_embedding() -> None:
    model = model_of("vaswani")
    assert isinstance(model.bind(moved(model)), EncoderDecoder)
    assert [path for path, role in model.roles.items() if role == "embedding"] == ["embedding/embedding"]
    assert "head/kernel" not in model.shapes
    # 65M parameters in the paper's table 3 (base), with a vocabulary of about 37,000.
    base = ModelDef.of(lambda rngs: TransformerEncoderDecoder(37_000, 512, 512, jnp.float32, rngs))
    assert round(base.size / 1e6) == pytest.approx(64, abs=2)


def test_embedded_tokens_start_with_a_variance_of_one() -> None:
    params = jax.jit(model_of("vaswani", width=96, layers=1).init)(jax.random.key(0))
    assert params["embedding/embedding"].std() * np.sqrt(96) == pytest.approx(1, rel=0.1)
    assert params["encoder/mlp/down/kernel"].std() * np.sqrt(4 * 96) == pytest.approx(1, rel=0.1)
    params = jax.jit(model_of("t5", width=96, layers=1).init)(jax.random.key(0))
    assert params["embedding/embedding"].std() == pytest.approx(1, rel=0.1)
    assert params["decoder/attention/q/kernel"].std() * np.sqrt(96 * 5) == pytest.approx(1, rel=0.1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder_decoder.width = 12 does not divide into .*heads = 5"):
        model_of("vaswani", heads=5)
    with pytest.raises(ConfigError, match=r"t5.buckets = 3, t5.max_distance = 5: an even number"):
        model_of("t5", buckets=3)
    model = model_of("pre_norm")
    with pytest.raises(ConfigError, match="at most source_len = 11 tokens, not 12"):
        model.bind(moved(model)).encode_source(tokens(S + 1))
