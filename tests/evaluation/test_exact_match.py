"""Whole targets, written greedily: against a loop that reads everything anew for every token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.evaluation.exact_match import matches
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy, Sample
from lmlab.models.rnn_seq2seq import RNNSeq2Seq
from lmlab.nn.functional import ModelDef

V, B, S, T, D, END = 5, 11, 6, 9, 7, 4
RANDOM = np.random.default_rng(8)
LENGTHS = np.array([6, 1, 2, 5, 3, 4, 1, 6, 2, 3, 5])
SOURCES = [RANDOM.integers(0, V, n) for n in LENGTHS]
MODEL = ModelDef.of(lambda rngs: RNNSeq2Seq(V, jnp.float32, rngs, width=D, attention="bahdanau", init_scale=1.7))
PARAMS = jax.jit(MODEL.init)(jax.random.key(21))


def padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows]).astype(np.int32)


def by_hand(length: int = T) -> list[list[int]]:
    """What the model writes to each source, up to the end of text, in at most `length` tokens."""
    there = jnp.asarray(np.arange(S) < LENGTHS[:, None], jnp.int32)

    @jax.jit
    def logits(tokens: jax.Array) -> jax.Array:
        model = MODEL.bind(PARAMS)
        memory = model.encode_source(jnp.asarray(padded(SOURCES, S)), segment_ids=there)
        return model.project(model.decode(tokens, memory)[0])

    tokens = np.full((B, length + 1), END)
    for t in range(length):
        tokens[:, t + 1] = np.asarray(logits(jnp.asarray(tokens[:, :-1])))[:, t].argmax(-1)
    rows = [row.tolist() for row in tokens[:, 1:]]
    return [row[: row.index(END)] if END in row else row for row in rows]


def test_a_decoder_writes_targets_as_reading_all_anew_would_and_each_row_as_alone() -> None:
    decoder, wanted = Decoder(MODEL, Greedy(), end_of_text=END), by_hand()
    assert len({len(row) for row in wanted}) > 1, "the test needs targets of different lengths"
    empty = [np.array([], int)] * B
    written = decoder.complete(PARAMS, empty, length=T, sources=SOURCES)
    assert [row.tolist() for row in written] == wanted
    with jax.transfer_guard("disallow"):
        alone = decoder.complete(PARAMS, empty[:1], length=T, sources=SOURCES[3:4])
    assert alone[0].tolist() == wanted[3]
    drawn = Decoder(MODEL, Sample(), end_of_text=END)
    one, same = (drawn.complete(PARAMS, empty[:n], length=T, sources=SOURCES[:n], seed=5)[0] for n in (B, 1))
    np.testing.assert_array_equal(one, same)


def test_rows_match_that_are_right_from_the_first_id_to_the_end() -> None:
    written = by_hand()
    ended = [row for row in range(B) if len(written[row]) < T]
    assert len(ended) >= 5, "the test needs targets that end"
    targets = [[*row[: T - 1], END] for row in written]  # a row that has not ended by then is wrong
    right = set(ended)
    wrong, short, long, absent = [row for row in ended if written[row]][:4]
    targets[wrong][0] = (targets[wrong][0] + 1) % END
    targets[short] = [*targets[short][:-2], END]
    targets[long] = [*targets[long][:-1], 1, END][:T]
    lengths = np.array([len(row) for row in targets])
    weights = (np.arange(T) < lengths[:, None]).astype(np.float32)
    weights[absent] = 0
    right -= {wrong, short, long, absent}
    batch = {
        "source_tokens": padded(SOURCES, S),
        "source_segment_ids": (np.arange(S) < LENGTHS[:, None]).astype(np.int32),
        "tokens": np.full((B, T), END),
        "targets": padded([np.array(row) for row in targets], T),
        "weights": weights,
    }
    found = jax.jit(lambda params, batch: matches(MODEL.bind(params), batch, END))(PARAMS, batch)
    present = [row for row in range(B) if row != absent]
    assert {name: int(value) for name, value in found.items()} == {
        "rows": B - 1,
        "exact_match": len(right),
        "length/written": sum(len(written[row]) for row in present),
        "length/target": sum(len(targets[row]) - 1 for row in present),
    }
