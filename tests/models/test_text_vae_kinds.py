"""Text VAEs of every kind of encoder and decoder: the laws of models, and Transformers against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.generation.decoding import Decoder
from lmlab.generation.prior_samples import Told
from lmlab.generation.samplers import Greedy
from lmlab.models.text_vae import TextVAE
from lmlab.nn.functional import ModelDef
from lmlab.registry import models
from lmlab.testing import of_models
from lmlab.testing.tiny import Tiny
from tests.later import later

V, T, B, Z, E, D, H, L = 13, 7, 3, 2, 5, 12, 3, 2
THERE = (np.arange(T) < np.array([[T], [T - 3], [2]])).astype(np.int32)
KINDS = ("lstm", "gru", "elman", "transformer")


def vae(**options: Any) -> ModelDef[TextVAE]:
    sizes = {"latent": Z, "embedding": E, "width": D, "layers": L, "heads": H, "init_scale": 0.4}
    both = {"encoder": "transformer", "decoder": "transformer"}
    return ModelDef.of(lambda rngs: TextVAE(V, T, jnp.float32, rngs, **{**sizes, **both, **options}))


def parameters(model: ModelDef[TextVAE]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    return {path: draw.normal(0, 0.4, shape.shape).astype(np.float32) for path, shape in model.shapes.items()}


IDS = np.random.default_rng(5).integers(0, V, (B, T)).astype(np.int32)
LATENTS = np.random.default_rng(7).normal(size=(B, Z)).astype(np.float32)


def norm(x: np.ndarray, p: dict[str, np.ndarray], at: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{at}/scale"] + p[f"{at}/bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def blocks(p: dict[str, np.ndarray], side: str, x: np.ndarray, memory: np.ndarray | None, causal: bool) -> np.ndarray:
    """The states of one row, (T, D), after all blocks; `memory` is one more key and value of each layer, (L, D)."""
    length, width = len(x), D // H
    for layer in range(L):
        own = {path: value[layer] for path, value in p.items() if path.startswith(f"{side}/blocks/")}
        at = f"{side}/blocks"
        y = norm(x, own, f"{at}/attention_norm")
        qkv = (y @ own[f"{at}/attention/qkv/kernel"] + own[f"{at}/attention/qkv/bias"]).reshape(length, H, 3, width)
        heads = []
        for head in range(H):
            q, k, v = qkv[:, head].swapaxes(0, 1)
            if memory is not None:
                told = memory[layer].reshape(H, width)[head][None]
                k, v = np.concatenate([told, k]), np.concatenate([told, v])
            scores = q @ k.T / np.sqrt(width)
            if causal:
                extra = len(k) - length
                scores[np.arange(len(k))[None] > np.arange(length)[:, None] + extra] = -np.inf
            share = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(share / share.sum(-1, keepdims=True) @ v)
        mixed = np.concatenate(heads, -1)
        x = x + mixed @ own[f"{at}/attention/out/kernel"] + own[f"{at}/attention/out/bias"]
        y = norm(x, own, f"{at}/mlp_norm")
        inner = gelu(y @ own[f"{at}/mlp/up/kernel"] + own[f"{at}/mlp/up/bias"])
        x = x + inner @ own[f"{at}/mlp/down/kernel"] + own[f"{at}/mlp/down/bias"]
    return norm(x, p, f"{side}/norm")


@pytest.mark.parametrize("latent_to", ["both", "inputs", "state"])
def test_transformers_are_told_the_latent_as_the_paper_has_it(latent_to: str) -> None:
    model = vae(latent_to=latent_to)
    params = parameters(model)
    p = {path: np.float64(value) for path, value in params.items()}

    @jax.jit
    def read(params: Any) -> Any:
        bound = model.bind(params)
        states, _ = bound.hidden_given(IDS, LATENTS, segment_ids=THERE)
        return bound.posterior(IDS, segment_ids=THERE), states, bound.project(states)

    posterior, states, logits = read(params)
    for row, length in enumerate(THERE.sum(1)):
        told = {"decoder/latent/kernel": 0.0, "decoder/memory/kernel": None}
        told |= {path: LATENTS[row] @ p[path] for path in told if path in p}
        memory = told["decoder/memory/kernel"]
        x = {
            side: p[f"{side}/embedding/embedding"][IDS[row, :length]] @ p[f"{side}/widen/kernel"]
            + p[f"{side}/positions/embedding"][:length]
            for side in ("encoder", "decoder")
        }
        memory = None if memory is None else memory.reshape(L, D)
        expected = blocks(p, "decoder", x["decoder"] + told["decoder/latent/kernel"], memory, causal=True)
        np.testing.assert_allclose(states[row, :length], expected, atol=1e-5)
        np.testing.assert_allclose(logits[row, :length], expected @ p["decoder/head/kernel"], atol=2e-5)
        first = blocks(p, "encoder", x["encoder"], None, causal=False)[0]
        mean, log_variance = np.split(first @ p["encoder/posterior/kernel"], 2)
        np.testing.assert_allclose(posterior.mean[row], mean, atol=1e-5)
        np.testing.assert_allclose(posterior.log_variance[row], log_variance, atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", *later(["rotary", "relative"])])
@pytest.mark.parametrize("latent_to", ["inputs", "state"])
def test_cached_is_uncached_and_the_latent_reaches_every_position(latent_to: str, positions: str) -> None:
    model = vae(latent_to=latent_to, positions=positions, embedding=D)
    params = parameters(model)

    @jax.jit
    def read(params: Any, latents: Any) -> Any:
        bound = model.bind(params)
        cache, parts = bound.init_cache(B, T), []
        for piece in jnp.split(IDS, [1, 3], axis=1):
            states, cache = bound.hidden_given(piece, latents, cache=cache)
            parts.append(states)
        return bound.hidden_given(IDS, latents)[0], jnp.concatenate(parts, 1), cache.length

    whole, pieces, length = read(params, LATENTS)
    np.testing.assert_allclose(pieces, whole, atol=2e-5)
    assert length.tolist() == [T] * B
    other = LATENTS.copy()
    other[1] += 1
    moved = np.abs(np.asarray(read(params, other)[0] - whole)).max(-1)
    assert (moved[1] > 1e-3).all() and not moved[[0, 2]].any()


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_a_latent_is_decoded_with_a_cache_as_without(kind: str) -> None:
    model = vae(encoder=kind, decoder=kind)
    params, told = parameters(model), Told(model, jnp.asarray(LATENTS))
    prompts = [IDS[0, :1], IDS[1, :3], IDS[2, :2]]
    written = Decoder(told, Greedy(), end_of_text=None).complete(params, prompts, length=4)
    logits = jax.jit(lambda p, ids: model.bind(p).project(model.bind(p).hidden_given(ids, LATENTS)[0]))
    rows = [np.concatenate(pair) for pair in zip(prompts, written, strict=True)]
    found = np.asarray(logits(params, np.array([np.pad(row, (0, T - len(row))) for row in rows])))
    for row, prompt, answer in zip(found, prompts, written, strict=True):
        steps = row[len(prompt) - 1 : len(prompt) + 3]
        np.testing.assert_allclose(np.take_along_axis(steps, answer[:, None], 1)[:, 0], steps.max(1), atol=1e-5)


def test_transformers_end_with_their_learned_positions_and_the_encoder_reads_one_token_more() -> None:
    model = vae()
    bound = model.bind(model.shapes)
    assert model.shapes["encoder/positions/embedding"].shape == (T + 1, D)
    jax.eval_shape(lambda p: model.bind(p).posterior(jnp.zeros((B, T + 1), jnp.int32)), model.shapes)
    with pytest.raises(ConfigError, match="reads at most seq_len = 7"):
        bound.init_cache(B, T + 1)
    with pytest.raises(ConfigError, match=r"text_vae.width = 12 does not divide"):
        vae(heads=5)


class Kind(Tiny):
    """The tiny experiment with other encoders and decoders."""

    def program(self, **experiment: Any) -> Any:
        kind = {"text_vae.encoder": self.folder.name, "text_vae.decoder": self.folder.name}
        return super().program(**kind, **experiment)


LAWS = [
    of_models.never_looks_ahead,
    of_models.reads_in_pieces_as_at_once,
    of_models.never_reads_padding,
    of_models.drops_by_row,
    of_models.learns_in_every_parameter,
    of_models.has_float32_logits,
    of_models.starts_from_its_key,
]


@pytest.mark.long
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_laws(kind: str, law: Any, tmp_path: Any) -> None:
    law(Kind(models.entry("text_vae"), tmp_path / kind))
