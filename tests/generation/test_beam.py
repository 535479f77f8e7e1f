"""Beam search against all texts there are, and against a search written out, over a model that forgets nothing."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.errors import ConfigError, DataError
from lmlab.generation.beam import BeamOptions, BeamSearch, Hypothesis
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn
from tests.later import later

V, D, END, LENGTH = 5, 17, 2, 4
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0] * 1.5
PROMPTS = [np.array([3, 1, 4, 1, 0]), np.array([4]), np.array([0, 3])]


class Reader(nnx.Module):
    """h_t = tanh(TURN h_{t-1} + embedding[token]), its cache with the rows behind: (D, B)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        normal = jax.random.normal
        self.embedding = nnx.Param(2 * normal(rngs.params(), (V, D)), role="embedding")
        self.out = nnx.Param(0.4 * normal(rngs.params(), (D, V)), role="kernel")

    def hidden(self, tokens, *, positions=None, segment_ids=None, cache=None, keys=None):
        def read(h, token):
            h = jnp.tanh(h @ jnp.asarray(TURN, jnp.float32) + self.embedding[...][token])
            return h, h

        start = jnp.zeros((tokens.shape[0], D)) if cache is None else cache["h"].T
        last, states = jax.lax.scan(read, start, tokens.T)
        return states.swapaxes(0, 1), None if cache is None else {"h": last.T, "count": cache["count"] + 1}

    def project(self, hidden):
        return hidden @ self.out[...]

    def init_cache(self, batch, length):
        return {"h": jnp.zeros((D, batch)), "count": jnp.zeros(3)}


MODEL = ModelDef.of(Reader)
PARAMS = drawn(MODEL, 5)


def next_log_p(tokens: tuple[int, ...]) -> np.ndarray:
    """log p of the next token, float64."""
    embedding, out, h = np.float64(PARAMS["embedding"]), np.float64(PARAMS["out"]), np.zeros(D)
    for token in tokens:
        h = np.tanh(h @ TURN + embedding[token])
    logits = h @ out
    return logits - np.log(np.exp(logits).sum())


def log_p(prompt: np.ndarray, text: tuple[int, ...]) -> float:
    told = tuple(prompt.tolist())
    return sum(next_log_p(told + text[:i])[token] for i, token in enumerate(text))


def all_texts() -> list[tuple[int, ...]]:
    """Every text of at most LENGTH tokens that has ended, or is as long as it may be."""
    others = [token for token in range(V) if token != END]
    ended = [(*begin, END) for n in range(LENGTH) for begin in itertools.product(others, repeat=n)]
    return ended + list(itertools.product(others, repeat=LENGTH))


def written_out(prompt: np.ndarray, beams: int, penalty: float) -> list[tuple[tuple[int, ...], float]]:
    """The search as lists: texts and scores, the best first. It goes on to the end, where nothing better can come."""
    going, kept = [((), 0.0)], []
    for n in range(1, LENGTH + 1):
        told = tuple(prompt.tolist())
        longer = [
            ((*text, token), total + next_log_p(told + text)[token]) for text, total in going for token in range(V)
        ]
        longer = sorted(longer, key=lambda pair: -pair[1])[: 2 * beams]
        over = [(text, total / n**penalty) for text, total in longer if text[-1] == END or n == LENGTH]
        kept = sorted(kept + over, key=lambda pair: -pair[1])[:beams]
        going = [pair for pair in longer if pair[0][-1] != END][:beams]
    return kept


def written_out_in_groups(
    prompt: np.ndarray, beams: int, penalty: float, groups: int, diversity: float
) -> list[tuple[tuple[int, ...], float]]:
    """Diverse beam search as lists, of `beams` beams in each group."""
    going: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(groups)]
    kept: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in range(groups)]
    for n in range(1, LENGTH + 1):
        chosen = [0] * V  # beams of the groups before, by the token that they took here
        for g in range(groups):
            longer = []
            for text, total in going[g]:
                step = next_log_p((*prompt.tolist(), *text))
                longer += [((*text, v), total + step[v], total + step[v] - diversity * chosen[v]) for v in range(V)]
            longer = sorted(longer, key=lambda one: -one[2])[: 2 * beams]
            over = [(text, total / n**penalty) for text, total, _ in longer if text[-1] == END or n == LENGTH]
            kept[g] = sorted(kept[g] + over, key=lambda pair: -pair[1])[:beams]
            going[g] = [(text, total) for text, total, _ in longer if text[-1] != END][:beams]
            for text, _ in going[g]:
                chosen[text[-1]] += 1
    return sorted(dict(itertools.chain(*kept)).items(), key=lambda pair: -pair[1])


def search(
    beams: int, penalty: float, prompts: list[np.ndarray] = PROMPTS, *, groups: int = 1
) -> list[list[Hypothesis]]:
    made = BeamSearch(MODEL, BeamOptions(beams, penalty, groups), end_of_text=END)
    return made.search(PARAMS, prompts, length=LENGTH)


def text_of(found: Hypothesis) -> tuple[int, ...]:
    """With its end, which is there in all that are shorter than they may be."""
    tokens = tuple(found.tokens.tolist())
    return tokens if len(tokens) == LENGTH else (*tokens, END)


@pytest.mark.parametrize("penalty", [-0.5, 0.0, 0.6, 1.0, 2.0])
def test_with_a_beam_for_every_beginning_the_best_of_all_texts_are_found(penalty: float) -> None:
    beams = (V - 1) ** (LENGTH - 1)
    for prompt, found in zip(PROMPTS, search(beams, penalty), strict=True):
        scored = {text: log_p(prompt, text) / len(text) ** penalty for text in all_texts()}
        best = sorted(scored, key=lambda text: -scored[text])[:beams]
        np.testing.assert_allclose([one.score for one in found], [scored[text] for text in best], rtol=2e-4)
        for one in found:
            np.testing.assert_allclose(one.score, scored[text_of(one)], rtol=2e-4)
            np.testing.assert_allclose(one.log_probability, log_p(prompt, text_of(one)), rtol=2e-4)
        assert len({text_of(one) for one in found}) == beams


@pytest.mark.parametrize("beams", [1, 2, 3, 7])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_few_beams_find_what_the_search_written_out_finds(beams: int, penalty: float) -> None:
    for prompt, found in zip(PROMPTS, search(beams, penalty), strict=True):
        wanted = written_out(prompt, beams, penalty)
        assert [text_of(one) for one in found] == [text for text, _ in wanted]
        np.testing.assert_allclose([one.score for one in found], [score for _, score in wanted], rtol=2e-4)


@pytest.mark.parametrize(("beams", "groups"), [(1, 4), (2, 2), (2, 3), (7, 2)])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("diversity", [0.4, *later([0.0, 3.0])])
def test_groups_find_what_the_diverse_search_written_out_finds(
    beams: int, groups: int, penalty: float, diversity: float
) -> None:
    options = BeamOptions(beams * groups, penalty, groups, diversity)
    found = BeamSearch(MODEL, options, end_of_text=END).search(PARAMS, PROMPTS, length=LENGTH)
    for prompt, row in zip(PROMPTS, found, strict=True):
        wanted = written_out_in_groups(prompt, beams, penalty, groups, diversity)
        assert [text_of(one) for one in row] == [text for text, _ in wanted]
        np.testing.assert_allclose([one.score for one in row], [score for _, score in wanted], rtol=2e-4)


def test_groups_that_do_not_know_of_each_other_find_the_same_and_diverse_ones_begin_differently() -> None:
    (prompt,) = PROMPTS[:1]

    def found(diversity: float) -> list[Hypothesis]:
        options = BeamOptions(4, groups=4, diversity=diversity)
        return BeamSearch(MODEL, options, end_of_text=None).search(PARAMS, [prompt], length=LENGTH)[0]

    assert len(found(0.0)) == 1
    assert len({int(one.tokens[0]) for one in found(100.0)}) == 4


def test_what_is_found_for_a_prompt_does_not_depend_on_the_prompts_beside_it() -> None:
    together = search(6, 0.6, groups=2)
    for prompt, found in zip(PROMPTS, together, strict=True):
        (alone,) = search(6, 0.6, [prompt], groups=2)
        assert [text_of(one) for one in alone] == [text_of(one) for one in found]
        np.testing.assert_allclose([one.score for one in alone], [one.score for one in found], rtol=1e-5)


def test_without_an_end_one_beam_is_greedy() -> None:
    made = BeamSearch(MODEL, BeamOptions(1), end_of_text=None).search(PARAMS, PROMPTS, length=9)
    greedy = Decoder(MODEL, Greedy(), end_of_text=None).complete(PARAMS, PROMPTS, length=9)
    for (found,), wanted in zip(made, greedy, strict=True):
        np.testing.assert_array_equal(found.tokens, wanted)


def test_more_beams_than_texts_find_all_of_them() -> None:
    found = BeamSearch(MODEL, BeamOptions(40), end_of_text=END).search(PARAMS, PROMPTS[:1], length=2)[0]
    assert len(found) == 1 + (V - 1) * V  # END; and each other token with any behind it


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 beams: there must be at least 1"):
        BeamOptions(0)
    with pytest.raises(ConfigError, match="4 beams in 3 groups: groups must be equally large"):
        BeamOptions(4, groups=3)
    with pytest.raises(ConfigError, match=r"diversity of -0\.1: it must be at least 0"):
        BeamOptions(4, groups=2, diversity=-0.1)
    with pytest.raises(
        ConfigError, match=r"adds 4 tokens to a prompt of 5 reads 8, and the model has positions for 6.*at most 2"
    ):
        BeamSearch(MODEL, BeamOptions(2), limit=6).search(PARAMS, PROMPTS, length=4)
    with pytest.raises(DataError, match="an empty prompt"):
        BeamSearch(MODEL, BeamOptions(2)).search(PARAMS, [np.array([], int)], length=4)
