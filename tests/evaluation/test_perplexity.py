"""Perplexity against a count in NumPy, float64, over the text itself."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.data import text_tables
from lmlab.data.tokenizers.plain import Bytes
from lmlab.evaluation.perplexity import measures, totals
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V = 256


class Bigram(nnx.Module):
    def __init__(self, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (V, V)), role="embedding")

    def hidden(self, tokens, *, positions=None, segment_ids=None, cache=None, keys=None):
        return self.table[...][tokens], cache

    def project(self, hidden):
        return hidden

    def init_cache(self, batch, length):
        return jnp.zeros(batch)


MODEL = ModelDef.of(Bigram)
PARAMS = drawn(MODEL, 1)
TABLE = np.float64(PARAMS["table"])
LOGP = TABLE - np.log(np.exp(TABLE).sum(-1, keepdims=True))
DOCUMENTS = ["ein Wort,\n  noch\teins ", " naïve", "日本", ""]


def stream():
    ids = [0]
    for document in DOCUMENTS:
        ids += [*document.encode(), 0]
    return np.array(ids, np.int32)


def batch_of(ids, rows, seq_len):
    """The stream in rows, padded by targets of weight 0 that must not count."""
    pad = rows * seq_len - (len(ids) - 1)
    tokens, targets = np.pad(ids[:-1], (0, pad), constant_values=97), np.pad(ids[1:], (0, pad), constant_values=98)
    weights = np.pad(np.ones(len(ids) - 1, np.float32), (0, pad))
    return {k: v.reshape(rows, seq_len) for k, v in {"tokens": tokens, "targets": targets, "weights": weights}.items()}


def test_totals_are_those_of_the_text_whatever_the_rows_it_is_cut_into():
    ids = stream()
    expected_nats = -LOGP[ids[:-1], ids[1:]].sum()
    for rows, seq_len in [(1, 64), (7, 7), (11, 5), (23, 3)]:
        batch = jax.tree.map(jnp.asarray, batch_of(ids, rows, seq_len))
        sums = jax.jit(lambda p, b: totals(MODEL.bind(p), b, text_tables(Bytes())))(PARAMS, batch)
        assert int(sums["tokens"]) == len(ids) - 1
        assert int(sums["bytes"]) == sum(len(document.encode()) for document in DOCUMENTS)
        assert int(sums["words"]) == sum(len(document.split()) for document in DOCUMENTS)
        np.testing.assert_allclose(float(sums["nats"]), expected_nats, rtol=1e-5)


def test_a_dataset_of_ids_has_neither_bytes_nor_words():
    batch = jax.tree.map(jnp.asarray, batch_of(stream(), 7, 7))
    assert totals(MODEL.bind(PARAMS), batch, None).keys() == {"nats", "tokens"}
    assert measures(12.0, 4).keys() == {"nats", "tokens", "nats_per_token", "ppl/token"}


def test_perplexities_divide_one_total_by_different_units():
    metrics = measures(nats=60.0, tokens=20, bytes=30, words=5)
    assert metrics["nats_per_token"] == 3.0
    assert metrics["bits_per_byte"] == pytest.approx(2.0 / math.log(2))
    assert metrics["ppl/token"] == pytest.approx(math.exp(3))
    assert metrics["ppl/byte"] == pytest.approx(math.exp(2))
    assert metrics["ppl/word"] == pytest.approx(math.exp(12))


def test_a_hopeless_model_has_infinite_perplexity_not_an_error():
    assert measures(nats=1e6, tokens=10)["ppl/token"] == math.inf
    assert math.isnan(measures(nats=math.nan, tokens=10)["ppl/token"])
