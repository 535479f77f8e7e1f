"""What a program's attention looks at, and whose tokens the numbers belong to; the models have tests of their own."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.attention_map import AttentionMap, attention_map
from lmlab.registry import REGISTRIES
from lmlab.testing.of_models import moved
from lmlab.testing.tiny import Tiny
from lmlab.training.program import Program

PAIRS = {"dataset": "@tsv_pairs", "loss": "@seq2seq", "tokenizer": "@bytes", "bytes.end_of_text": 256}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def program(model: str, **settings: Any) -> tuple[Program, dict[str, jax.Array]]:
        tiny = Tiny(REGISTRIES["model"].entry(model), tmp_path_factory.mktemp("files"))
        found = tiny.program(**settings)
        return found, moved(found.model)

    return program


def assert_shares(found: AttentionMap, layers: int, heads: int) -> None:
    assert found.weights.shape == (layers, heads, len(found.reading), len(found.read))
    np.testing.assert_allclose(found.weights.sum(-1), 1, rtol=1e-5)


def test_an_encoder_decoder_looks_at_its_source_its_target_and_within_the_source(made: Any) -> None:
    program, params = made("encoder_decoder", seq_len=23, **PAIRS)
    cross = attention_map(program, params, "ab", source="x y")
    assert cross.reading == ("<end_of_text>", "a", "b") and cross.read == ("x", "␣", "y", "<end_of_text>")
    assert_shares(cross, 3, 3)
    own = attention_map(program, params, "ab", source="x y", own=True)
    assert own.reading == own.read == cross.reading
    assert_shares(own, 3, 3)
    assert not np.triu(own.weights, 1).any()  # the target is read from left to right
    within = attention_map(program, params, "x y")
    assert within.reading == within.read == cross.read
    assert_shares(within, 2, 3)

    @jax.jit
    def read(params: Any) -> Any:
        model = program.model.bind(params)
        return model.target_attention_weights(
            np.array([[256, 97, 98]]), model.encode_source(np.array([[120, 32, 121, 256]]))
        )

    looks = read(params)
    np.testing.assert_allclose(cross.weights, looks.source[:, 0], atol=1e-6)
    np.testing.assert_allclose(own.weights, looks.own[:, 0], atol=1e-6)


def test_a_recurrent_decoder_looks_at_its_source_only(made: Any) -> None:
    program, params = made("rnn_seq2seq", seq_len=23, **PAIRS)
    found = attention_map(program, params, "ab", source="x y")
    assert found.read == ("x", "␣", "y", "<end_of_text>")
    assert_shares(found, 1, 1)
    with pytest.raises(ConfigError, match="give it by --source"):
        attention_map(program, params, "ab")
    with pytest.raises(ConfigError, match="'rnn_seq2seq' has no such attention"):
        attention_map(program, params, "ab", source="x y", own=True)


def test_what_cannot_be_shown_is_refused(made: Any) -> None:
    program, params = made("lstm")
    with pytest.raises(ConfigError, match="'lstm' has no attention weights to show"):
        attention_map(program, params, "1 2")
    program, params = made("gpt")  # whose data are ids, and which has 7 positions
    with pytest.raises(ConfigError, match="leave --source out"):
        attention_map(program, params, "1 2", source="3")
    with pytest.raises(ConfigError, match="the text has 8 tokens, and the model positions for 7"):
        attention_map(program, params, "1 2 3 4 5 6 7 8")
    for text in ("1 x", "1000000"):
        with pytest.raises(DataError, match="a text is numbers from 0 to"):
            attention_map(program, params, text)
    with pytest.raises(DataError, match="there is no token in ''"):
        attention_map(program, params, "")
