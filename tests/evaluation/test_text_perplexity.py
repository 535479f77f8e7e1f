"""Perplexity in sliding windows: against reading every window by itself in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.text_perplexity import TextPerplexity, windows
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    entry = REGISTRIES["evaluator"].entry("text_perplexity")
    settings = {"model": "@gpt", "seq_len": 13, "gpt.positions": "learned"}
    return Tiny(entry, tmp_path_factory.mktemp("texts")).program(**settings)


@pytest.fixture(scope="module")
def state(program: Any) -> Any:
    fresh = program.init_state()
    return fresh._replace(params={path: value * 5 for path, value in fresh.params.items()})  # of which some is sure


def test_every_token_counts_once_and_looks_back_far_enough() -> None:
    stream = np.arange(1, 48)
    for window, stride in ((13, 13), (13, 5), (13, 1), (47, 3), (60, 60)):
        counted = []
        for ids, count in windows(stream, 0, window, stride):
            assert len(ids) <= window + 1
            counted += ids[-count:].tolist()
            if counted[0] != ids[-count]:  # not the first window
                assert len(ids) - count >= window - stride + 1 and ids[0] == ids[-1] - window
        assert counted == stream.tolist()


@pytest.mark.parametrize(("stride", "texts"), [(13, "apart"), (4, "apart"), (4, "joined")])
def test_nats_are_those_of_reading_each_window_alone(program: Any, state: Any, stride: int, texts: Any) -> None:
    found = TextPerplexity(stride=stride, texts=texts, examples=2).bind(program)(state)
    examples = list(program.data.dataset.split("valid"))
    chosen = [examples[i * len(examples) // 2] for i in range(2)]
    tokenizer, params = program.tokenizer, local_params(program, state)
    logits = jax.jit(lambda ids: program.model.bind(params).logits(ids))
    end, nats = tokenizer.end_of_text, 0.0
    streams = [np.append(tokenizer.encode(e.text), end) for e in chosen]
    for stream in streams if texts == "apart" else [np.concatenate(streams)]:
        ids, at = np.concatenate([[end], stream]), 0
        while at < len(stream):
            new = min(13 if at == 0 else stride, len(stream) - at)
            at += new
            first = max(at - 13, 0)
            read = np.zeros(13, np.int32)
            read[: at - first] = ids[first:at]
            rows = np.float64(logits(read[None])[0, : at - first])
            log_p = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
            nats -= log_p[np.arange(at - first), ids[first + 1 : at + 1]][-new:].sum()
    name = f"/window-13-stride-{stride}{'-joined' * (texts == 'joined')}"
    tokens = sum(map(len, streams))
    text = "".join(e.text for e in chosen)
    assert found[f"valid/tokens{name}"] == tokens == len(text.encode()) + 2
    np.testing.assert_allclose(found[f"valid/nats{name}"], nats, rtol=1e-5)
    np.testing.assert_allclose(found[f"valid/ppl/token{name}"], np.exp(nats / tokens), rtol=1e-4)
    words = sum(len(e.text.split()) for e in chosen)
    np.testing.assert_allclose(np.log(found[f"valid/ppl/word{name}"]), nats / words, rtol=1e-5)
    np.testing.assert_allclose(found[f"valid/bits_per_byte{name}"], nats / (tokens - 2) / np.log(2), rtol=1e-5)


def test_windows_that_do_not_fit_are_refused(program: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"window = 14: the model has positions for 13"):
        TextPerplexity(window=14).bind(program)
    with pytest.raises(ConfigError, match=r"stride = 5: tokens would be left out by a window of 3"):
        TextPerplexity(window=3, stride=5).bind(program)
    ids = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program()
    with pytest.raises(ConfigError, match=r"needs a CausalLM that reads text; the model 'lstm' reads ids"):
        TextPerplexity().bind(ids)
