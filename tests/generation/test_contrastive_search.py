"""Contrastive search against one that reads every candidate's text anew, without a cache, in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.generation.contrastive import ContrastiveSearch
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.models.encoder_decoder import T5
from lmlab.models.gpt import GPT
from lmlab.models.mamba import Mamba
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, T, END, LENGTH = 23, 19, 2, 9
PROMPTS = [np.array([3, 1, 4, 1, 5]), np.array([4]), np.array([9, 3])]
MODELS = {
    "gpt": ModelDef.of(lambda rngs: GPT(V, T, jnp.float32, rngs, width=12, heads=3, layers=2)),
    "mamba": ModelDef.of(lambda rngs: Mamba(V, jnp.float32, rngs, width=7, layers=2, state=3, rank=2)),
}
PARAMS = {name: drawn(model, 5, 0.6) for name, model in MODELS.items()}


@partial(jax.jit, static_argnums=0)
def read(name: str, tokens: Any) -> Any:
    """Of a padded text, so that it is compiled once: what stands behind is not seen."""
    bound = MODELS[name].bind(PARAMS[name])
    states = bound.hidden(tokens)[0]
    return states[0], bound.project(states)[0]


def written_out(name: str, prompt: np.ndarray, candidates: int, penalty: float, end: int | None) -> list[int]:
    def of(text: list[int]) -> tuple[np.ndarray, np.ndarray]:
        states, logits = read(name, np.array([text + [0] * (T - len(text))]))
        return np.float64(states)[: len(text)], np.float64(logits)[len(text) - 1]

    text = prompt.tolist()
    for _ in range(LENGTH):
        _, logits = of(text)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best, token = -np.inf, -1
        for candidate in np.argsort(-shares)[:candidates].tolist():
            states, _ = of([*text, candidate])
            directions = states / np.linalg.norm(states, axis=1, keepdims=True)
            score = (1 - penalty) * shares[candidate] - penalty * (directions[:-1] @ directions[-1]).max()
            best, token = max((best, token), (score, candidate), key=lambda one: one[0])
        if token == end:
            break
        text.append(token)
    return text[len(prompt) :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("candidates", "penalty", "end"), [(4, 0.6, END), (7, 0.3, None), (40, 0.9, END)])
def test_it_writes_what_the_search_without_a_cache_writes(
    name: str, candidates: int, penalty: float, end: int | None
) -> None:
    search = ContrastiveSearch(MODELS[name], candidates=candidates, penalty=penalty, end_of_text=end, limit=T)
    found = search.complete(PARAMS[name], PROMPTS, length=LENGTH)
    assert [row.tolist() for row in found] == [written_out(name, p, candidates, penalty, end) for p in PROMPTS]
    for prompt, row in zip(PROMPTS, found, strict=True):
        np.testing.assert_array_equal(search.complete(PARAMS[name], [prompt], length=LENGTH)[0], row)


@pytest.mark.parametrize(("candidates", "penalty"), [(1, 0.6), (5, 0.0)])
def test_one_candidate_or_no_penalty_is_greedy(candidates: int, penalty: float) -> None:
    model, params = MODELS["gpt"], PARAMS["gpt"]
    search = ContrastiveSearch(model, candidates=candidates, penalty=penalty, end_of_text=END)
    greedy = Decoder(model, Greedy(), end_of_text=END).complete(params, PROMPTS, length=LENGTH)
    for row, wanted in zip(search.complete(params, PROMPTS, length=LENGTH), greedy, strict=True):
        np.testing.assert_array_equal(row, wanted)


def test_targets_of_sources() -> None:
    model = ModelDef.of(
        lambda rngs: T5(
            V, T, 7, jnp.float32, rngs, width=10, heads=3, head_width=4, layers=2, buckets=6, max_distance=5
        )
    )
    params, sources = drawn(model, 5, 0.6), [np.array([3, 1, 4]), np.array([1, 5, 9, 2, 6])]
    greedy = Decoder(model, Greedy(), end_of_text=END).complete(params, [[0], [0]], length=6, sources=sources)
    search = ContrastiveSearch(model, candidates=3, penalty=0.0, end_of_text=END)
    for row, wanted in zip(search.complete(params, [[0], [0]], length=6, sources=sources), greedy, strict=True):
        np.testing.assert_array_equal(row, wanted)


def test_what_cannot_be_searched_is_refused() -> None:
    model = MODELS["gpt"]
    with pytest.raises(ConfigError, match="0 candidates: there must be at least 1"):
        ContrastiveSearch(model, candidates=0, penalty=0.5)
    with pytest.raises(ConfigError, match=r"penalty of 1\.5: it must be in \[0, 1\]"):
        ContrastiveSearch(model, candidates=2, penalty=1.5)
    search = ContrastiveSearch(model, candidates=2, penalty=0.5, limit=T)
    with pytest.raises(ConfigError, match=r"adds 15 tokens to a prompt of 5 reads 20.*for 19\. Ask for at most 14"):
        search.complete(PARAMS["gpt"], PROMPTS, length=15)
