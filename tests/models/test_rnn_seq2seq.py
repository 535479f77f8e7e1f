"""The recurrent encoder-decoder against float64 NumPy, one row and one step at a time, without padding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import EncoderDecoder
from lmlab.errors import ConfigError
from lmlab.models.rnn_seq2seq import RNNSeq2Seq
from lmlab.nn.functional import ModelDef, Params
from tests.later import later

V, B, S, T, D, L = 11, 3, 5, 4, 6, 2
LENGTHS = (5, 2, 1)
RANDOM = np.random.default_rng(2)
SOURCES, TOKENS = RANDOM.integers(0, V, (B, S)), RANDOM.integers(0, V, (B, T))
THERE = (np.arange(S) < np.array(LENGTHS)[:, None]).astype(np.int32)
CASES: list[dict[str, Any]] = [
    {"cell": "elman"},
    {"cell": "lstm", "attention": "luong_dot"},
    {"cell": "gru", "attention": "luong_general", "bidirectional": True},
    {"cell": "elman", "attention": "luong_concat", "input_feeding": True},
    {"cell": "lstm", "attention": "bahdanau", "bidirectional": True},
    {"cell": "gru", "attention": "bahdanau"},
]


def made(**given: Any) -> tuple[ModelDef[RNNSeq2Seq], Params]:
    settings = {"width": D, "layers": L, "init_scale": 0.7, **given}
    model = ModelDef.of(lambda rngs: RNNSeq2Seq(V, jnp.float32, rngs, **settings))

    @jax.jit
    def parameters(key: jax.Array) -> Params:
        return {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in model.init(key).items()}

    return model, parameters(jax.random.key(0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class ByHand:
    """The model of one row in float64."""

    def __init__(self, params: Params, settings: dict[str, Any]) -> None:
        self.params = {path: np.asarray(value, np.float64) for path, value in params.items()}
        self.cell, self.attention = settings["cell"], settings.get("attention", "none")
        self.bidirectional, self.feeding = settings.get("bidirectional"), settings.get("input_feeding")
        self.looks: list[np.ndarray] = []

    def step(self, layer: str, index: int, x: np.ndarray, state: list[np.ndarray], also: Any = 0.0) -> list[np.ndarray]:
        def of(name: str) -> np.ndarray:
            return self.params[f"{layer}/{name}"][index]

        gates, product, h = (
            x @ of("input/kernel") + of("input/bias") + also,
            state[0] @ of("recurrent/kernel"),
            state[0],
        )
        if self.cell == "elman":
            return [np.tanh(gates + product)]
        if self.cell == "gru":
            (r, z, n), (of_r, of_z, of_n) = np.split(gates, 3), np.split(product, 3)
            r, z = sigmoid(r + of_r), sigmoid(z + of_z)
            return [(1 - z) * np.tanh(n + r * (of_n + of("recurrent/bias"))) + z * h]
        i, f, g, o = np.split(gates + product, 4)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]

    def run(self, layer: str, index: int, xs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        width = self.params[f"{layer}/recurrent/kernel"].shape[1]
        state, outputs = [np.zeros(width)] * (2 if self.cell == "lstm" else 1), []
        for x in xs:
            state = self.step(layer, index, x, state)
            outputs.append(state[0])
        return np.stack(outputs), state

    def encode(self, source: np.ndarray) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        x, states = self.params["source_embedding/embedding"][source], []
        for index in range(L):
            if self.bidirectional:
                ahead, end = self.run("encoder/forward", index, x)
                back, beginning = self.run("encoder/backward", index, x[::-1])
                x = np.concatenate([ahead, back[::-1]], 1)
                state = [np.concatenate(pair) for pair in zip(end, beginning, strict=True)]
            else:
                x, state = self.run("encoder", index, x)
            states.append(state)
        return x, states

    def look(self, query: np.ndarray, seen: np.ndarray) -> np.ndarray:
        key = self.params.get("attention/key/kernel")
        if self.attention == "luong_dot":
            scores = seen @ query
        elif self.attention == "luong_general":
            scores = seen @ key @ query
        else:
            both = np.tanh(query @ self.params["attention/query/kernel"] + seen @ key)
            scores = both @ self.params["attention/project_score/kernel"][:, 0]
        shares = np.exp(scores) / np.exp(scores).sum()
        self.looks.append(shares)
        return shares @ seen

    def logits(self, source: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        seen, states = self.encode(source)
        attentional, found = np.zeros(D), []
        for token in tokens:
            x, also, context = self.params["embedding/embedding"][token], 0.0, None
            if self.attention == "bahdanau":
                context = self.look(states[-1][0], seen)
                also = context @ self.params["input/kernel"]
            if self.feeding:
                also = attentional @ self.params["input/kernel"]
            for index in range(L):
                states[index] = self.step("decoder", index, x, states[index], also if index == 0 else 0.0)
                x = states[index][0]
            if self.attention != "none":
                context = self.look(x, seen) if context is None else context
                x = attentional = np.tanh(np.concatenate([x, context]) @ self.params["out/kernel"])
            found.append(x @ self.params["head/kernel"] + self.params["head/bias"])
        return np.stack(found)


@pytest.mark.parametrize(
    "settings", [*CASES[3:], *later(CASES[:3])], ids=lambda case: "-".join(map(str, case.values()))
)
def test_logits_are_those_of_float64_of_each_row_alone(settings: dict[str, Any]) -> None:
    model, params = made(**settings)

    @jax.jit
    def logits(params: Params) -> tuple[jax.Array, jax.Array | None]:
        bound = model.bind(params)
        assert isinstance(bound, EncoderDecoder)
        memory = bound.encode_source(jnp.asarray(SOURCES), segment_ids=jnp.asarray(THERE))
        looks = bound.target_attention_weights(jnp.asarray(TOKENS), memory).source
        return bound.project(bound.decode(jnp.asarray(TOKENS), memory)[0]), looks

    found, looks = logits(params)
    assert (looks is None) == ("attention" not in settings)
    for row in range(B):
        hand = ByHand(params, settings)
        wanted = hand.logits(SOURCES[row, : LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(found[row], wanted, atol=2e-5, err_msg=f"row {row}")
        if looks is not None:
            shares = np.pad(np.stack(hand.looks), ((0, 0), (0, S - LENGTHS[row])))
            np.testing.assert_allclose(looks[0, row, 0], shares, atol=2e-5, err_msg=f"row {row}")


@pytest.mark.parametrize("settings", [CASES[3], CASES[4]], ids=["fed", "bahdanau"])
def test_a_cache_goes_on_where_it_stopped_and_does_not_read_what_is_not_there(settings: dict[str, Any]) -> None:
    model, params = made(**settings)

    @jax.jit
    def both(params: Params) -> tuple[jax.Array, jax.Array]:
        bound, tokens = model.bind(params), jnp.asarray(TOKENS)
        memory = bound.encode_source(jnp.asarray(SOURCES), segment_ids=jnp.asarray(THERE))
        cache, parts = bound.init_decoding(memory, T), []
        for piece, there in ((tokens[:, :1], 1), (tokens[:, 1:3], 1), (tokens[:, :2], 0), (tokens[:, 3:], 1)):
            states, cache = bound.decode(piece, memory, cache=cache, segment_ids=jnp.full(piece.shape, there))
            parts += [states] if there else []
        return jnp.concatenate(parts, 1), bound.decode(tokens, memory)[0]

    in_pieces, at_once = both(params)
    np.testing.assert_allclose(in_pieces, at_once, atol=1e-5)


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rnn_seq2seq\.width = 7 must be even"):
        made(width=7, bidirectional=True)
    with pytest.raises(ConfigError, match="attention is 'bahdanau'"):
        made(attention="bahdanau", input_feeding=True)
