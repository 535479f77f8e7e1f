"""The decoding loop against a plain Python loop over a model whose answer depends on every token in its view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.errors import DataError
from lmlab.generation.decoding import CHUNK, Decoder, first_in_view
from lmlab.generation.samplers import Greedy, Sample
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, D, END = 13, 17, 11
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0] * 1.5


class Reader(nnx.Module):
    """h_t = tanh(TURN h_{t-1} + embedding[token]): a chaotic state, in which all that was read matters."""

    def __init__(self, rngs):
        normal = jax.random.normal
        self.embedding = nnx.Param(2 * normal(rngs.params(), (V, D)), role="embedding")
        self.out = nnx.Param(normal(rngs.params(), (D, V)), role="kernel")

    def hidden(self, tokens, *, positions=None, segment_ids=None, cache=None, keys=None):
        def read(h, token):
            h = jnp.tanh(h @ jnp.asarray(TURN, jnp.float32) + self.embedding[...][token])
            return h, h

        start = jnp.zeros((tokens.shape[0], D)) if cache is None else cache
        last, states = jax.lax.scan(read, start, tokens.T)
        return states.swapaxes(0, 1), None if cache is None else last

    def project(self, hidden):
        return hidden @ self.out[...]

    def init_cache(self, batch, length):
        return jnp.zeros((batch, D))


MODEL = ModelDef.of(Reader)
PARAMS = drawn(MODEL, 5)
PROMPTS = [np.array([3, 1, 4, 1, 5]), np.array([2, 7]), np.array([6])]


def greedy_by_hand(prompt, length, end=END, limit=10**9, penalty=1.0):
    """Reads the whole view again for every token, in float64."""
    embedding, out = np.float64(PARAMS["embedding"]), np.float64(PARAMS["out"])
    tokens = list(prompt) or [END]
    first = len(tokens)
    while len(tokens) < first + length:
        h = np.zeros(D)
        for token in tokens[first_in_view(len(tokens) - 1, limit) :]:
            h = np.tanh(h @ TURN + embedding[token])
        logits, seen = h @ out, sorted(set(tokens))
        logits[seen] *= np.where(logits[seen] > 0, 1 / penalty, penalty)
        tokens.append(int(np.argmax(logits)))
        if tokens[-1] == end:
            return tokens[first:-1]
    return tokens[first:]


def test_ragged_prompts_continue_as_each_would_alone_and_uncached():
    written = Decoder(MODEL, Greedy(), end_of_text=None).complete(PARAMS, PROMPTS, length=37)
    assert [row.tolist() for row in written] == [greedy_by_hand(p, 37, end=None) for p in PROMPTS]


def test_each_row_ends_at_its_own_end_of_text():
    by_hand = [greedy_by_hand(p, 60) for p in PROMPTS]
    assert len({len(row) for row in by_hand}) > 1, "the test needs rows that end at different places"
    written = Decoder(MODEL, Greedy(), end_of_text=END).complete(PARAMS, PROMPTS, length=60)
    assert [row.tolist() for row in written] == by_hand


def test_an_end_of_text_inside_the_prompt_does_not_end_the_row():
    prompt = np.array([3, END, 4])
    written = Decoder(MODEL, Greedy(), end_of_text=END).complete(PARAMS, [prompt, PROMPTS[2]], length=9)
    assert written[0].tolist() == greedy_by_hand(prompt, 9)


def test_an_empty_prompt_stands_for_the_beginning_of_a_document():
    decoder = Decoder(MODEL, Greedy(), end_of_text=END)
    assert decoder.complete(PARAMS, [np.array([], int)], length=8)[0].tolist() == greedy_by_hand([], 8)
    with pytest.raises(DataError, match="empty prompt"):
        Decoder(MODEL, Greedy(), end_of_text=None).complete(PARAMS, [np.array([], int)], length=8)


def test_a_random_row_depends_on_its_number_and_the_seed_but_not_on_the_rows_beside_it():
    decoder = Decoder(MODEL, Sample(), end_of_text=None)
    together = decoder.complete(PARAMS, PROMPTS, length=23, seed=2)
    beside_others = decoder.complete(PARAMS, [PROMPTS[0], np.array([9] * 11)], length=23, seed=2)
    np.testing.assert_array_equal(together[0], beside_others[0])
    assert not np.array_equal(together[0], decoder.complete(PARAMS, PROMPTS, length=23, seed=3)[0])


@pytest.mark.parametrize("penalty", [1.5, 0.8])
def test_repetition_is_penalised_for_all_that_a_row_has_and_for_nothing_of_the_rows_beside_it(penalty):
    sampler = Sample(temperature=0.0, repetition_penalty=penalty)
    written = Decoder(MODEL, sampler, end_of_text=END).complete(PARAMS, PROMPTS, length=60)
    by_hand = [greedy_by_hand(p, 60, penalty=penalty) for p in PROMPTS]
    assert [row.tolist() for row in written] == by_hand
    assert by_hand != [greedy_by_hand(p, 60) for p in PROMPTS], "the test needs a penalty that matters"


def test_rows_of_one_prompt_differ():
    written = Decoder(MODEL, Sample(), end_of_text=None).complete(PARAMS, [PROMPTS[0]] * 3, length=23)
    assert len({row.tobytes() for row in written}) == 3


def test_the_stream_comes_in_chunks_that_join_to_the_whole():
    decoder = Decoder(MODEL, Sample(), end_of_text=END)
    chunks = list(decoder.stream(PARAMS, PROMPTS, length=3 * CHUNK + 2))
    assert max(len(row) for chunk in chunks for row in chunk) <= CHUNK
    whole = decoder.complete(PARAMS, PROMPTS, length=3 * CHUNK + 2)
    for b, row in enumerate(whole):
        np.testing.assert_array_equal(row, np.concatenate([chunk[b] for chunk in chunks]))


def test_text_longer_than_the_models_view_slides_by_half_a_view():
    limit = 8
    assert [first_in_view(t, limit) for t in (0, 7, 8, 11, 12, 15, 16)] == [0, 0, 4, 4, 8, 8, 12]
    prompts = [*PROMPTS, np.arange(1, 12) % 10]  # one prompt is longer than the view
    written = Decoder(MODEL, Greedy(), end_of_text=None, limit=limit).complete(PARAMS, prompts, length=29)
    assert [row.tolist() for row in written] == [greedy_by_hand(p, 29, end=None, limit=limit) for p in prompts]


def test_decoding_stays_on_the_device_within_a_chunk_and_moves_nothing_implicitly():
    decoder = Decoder(MODEL, Sample(), end_of_text=None)
    with jax.transfer_guard("disallow"):
        decoder.complete(PARAMS, PROMPTS, length=5)


def test_the_loop_is_compiled_once_for_all_chunks():
    decoder = Decoder(MODEL, Greedy(), end_of_text=None)
    decoder.complete(PARAMS, PROMPTS, length=5 * CHUNK + 3)
    assert decoder._advance._cache_size() == 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere parts of a stack are read where they lie")
@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_copies_no_parameters(rows):
    """What it needs beside parameters and cache is less than the kernel of its queries, keys and values."""
    model = ModelDef.of(lambda rngs: GPT(2003, 17, jnp.float32, rngs, width=96, heads=6, layers=3))
    decoder, params = Decoder(model, Greedy(), end_of_text=None, limit=17), drawn(model, 5)
    advance, needed = decoder._advance, []

    def watched(*given):
        needed.append(advance.lower(*given).compile().memory_analysis().temp_size_in_bytes)
        return advance(*given)

    decoder._advance = watched
    decoder.complete(params, [np.arange(4)] * rows, length=5)
    assert needed[0] < 4 * 96 * 3 * 96 < 4 * 2003 * 96
