"""A mixture of experts, against a loop over tokens in float64, and inside of a block."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.errors import ConfigError
from lmlab.models.bert import BERT
from lmlab.models.encoder_decoder import T5
from lmlab.models.gpt import GPT
from lmlab.nn.auxiliary import collecting
from lmlab.nn.experts import Experts, Routing
from lmlab.nn.functional import ModelDef
from lmlab.nn.linear import normal
from lmlab.nn.mlp import MLP
from tests.drawn import drawn

B, T, D, F, E = 3, 7, 5, 11, 4
THERE = (np.arange(T) < np.array([[T], [0], [4]])).astype(np.int32)


@functools.cache
def mixture(per_token: int) -> tuple[ModelDef[Experts], dict[str, jax.Array], np.ndarray]:
    init = normal(0.7)
    routing = Routing(E, per_token, 0.01, 0.001, init)
    model = ModelDef.of(lambda rngs: Experts(routing, lambda rngs: MLP(D, F, "swiglu", init, init, rngs=rngs), D, rngs))
    return model, drawn(model, std=0.7), np.random.default_rng(1).normal(size=(B * T, D)).astype(np.float32)


def by_loop(params: dict[str, Any], x: np.ndarray, per_token: int) -> tuple[np.ndarray, float, float]:
    """Outputs, balance and router_z, one token and one chosen expert after the other."""
    p = {path: np.asarray(value, np.float64) for path, value in params.items()}
    outputs, balance, router_z = np.zeros((B * T, D)), 0.0, 0.0
    for row in range(B):
        fallen, given, count = np.zeros(E), np.zeros(E), THERE[row].sum()
        for time in range(T):
            token = x[row * T + time].astype(np.float64)
            logits = token @ p["router/kernel"]
            probabilities = np.exp(logits) / np.exp(logits).sum()
            chosen = np.argsort(-probabilities)[:per_token]
            gates = probabilities[chosen] / (probabilities[chosen].sum() if per_token > 1 else 1)
            for expert, gate in zip(chosen, gates, strict=True):
                own = {path.removeprefix("experts/"): value[expert] for path, value in p.items() if "experts" in path}
                up, left = (token @ own[f"{name}/kernel"] + own[f"{name}/bias"] for name in ("up", "gate"))
                inner = up * left / (1 + np.exp(-left))
                outputs[row * T + time] += gate * (inner @ own["down/kernel"] + own["down/bias"])
            if THERE[row, time]:
                router_z += np.log(np.exp(logits).sum()) ** 2
                fallen[chosen] += 1 / (per_token * count)
                given += probabilities / count
        balance += E * (fallen * given).sum()
    return outputs, balance, router_z


@pytest.mark.parametrize("per_token", [1, 2])
def test_a_token_is_computed_by_the_experts_that_it_chose(per_token: int) -> None:
    model, params, x = mixture(per_token)
    y, sums = jax.jit(lambda params, x: model.bind(params)(x, B, jnp.asarray(THERE)))(params, x)
    outputs, balance, router_z = by_loop(params, x, per_token)
    np.testing.assert_allclose(y, outputs, atol=1e-5)
    np.testing.assert_allclose(sums, (balance, router_z), rtol=1e-5)


def test_gradients_are_those_of_all_experts_at_once() -> None:
    model, params, x = mixture(2)
    share = jnp.asarray(np.random.default_rng(2).normal(size=(B * T, D)), jnp.float32)

    def ours(params: Any, x: Any) -> Any:
        y, sums = model.bind(params)(x, B, jnp.asarray(THERE))
        return (y * share).sum() + sums.balance + sums.router_z

    def theirs(p: Any, x: Any) -> Any:
        logits = x @ p["router/kernel"]
        law = jax.nn.softmax(logits)
        chosen = law >= jnp.sort(law, axis=-1)[:, -2:-1]
        gates = law * chosen / (law * chosen).sum(-1, keepdims=True)
        up, left = (
            jnp.einsum("nd,edf->enf", x, p[f"experts/{name}/kernel"]) + p[f"experts/{name}/bias"][:, None]
            for name in ("up", "gate")
        )
        down = jnp.einsum("enf,efd->end", up * jax.nn.silu(left), p["experts/down/kernel"])
        y = jnp.einsum("end,ne->nd", down + p["experts/down/bias"][:, None], gates)
        there = THERE.reshape(-1)
        z = (jax.nn.logsumexp(logits, -1) ** 2 * there).sum()
        given, fallen = (
            (a.reshape(B, T, E) * THERE[..., None]).sum(1) / np.maximum(THERE.sum(1), 1)[:, None] for a in (law, chosen)
        )
        return (y * share).sum() + z + E / 2 * (given * fallen).sum()

    got, wanted = jax.jit(lambda p, x: (jax.grad(ours, (0, 1))(p, x), jax.grad(theirs, (0, 1))(p, x)))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), got, wanted)


def gpt(**options: Any) -> ModelDef[GPT]:
    sizes = {"width": 6, "layers": 2, "heads": 3, "mlp_ratio": F / 6, "experts": E, **options}
    return ModelDef.of(lambda rngs: GPT(13, T, jnp.float32, rngs, **sizes))


def test_blocks_report_the_sums_of_all_layers_and_the_weights_of_the_batch() -> None:
    model = gpt(balance_loss=0.5, router_z_loss=0.25)
    params = drawn(model)
    # A router that prefers nothing: balance 1 in each row and layer, and log Z is log E.
    params["blocks/mlp/router/kernel"] = jnp.zeros_like(params["blocks/mlp/router/kernel"])

    @jax.jit
    def collected(params: Any) -> Any:
        with collecting() as terms:
            model.bind(params).hidden(jnp.zeros((B, T), jnp.int32), segment_ids=jnp.asarray(THERE))
        return dict(terms)

    terms = collected(params)
    rows, tokens = 2, THERE.sum()
    np.testing.assert_allclose(terms["balance"], (2 * rows, rows, 0.5), rtol=1e-6)
    np.testing.assert_allclose(terms["router_z"], (2 * tokens * np.log(E) ** 2, tokens, 0.25), rtol=1e-5)


SIZES = {"width": 6, "layers": 2, "heads": 3, "mlp_ratio": F / 6, "dropout": 0.0}


def encoder(**options: Any) -> ModelDef[BERT]:
    return ModelDef.of(lambda rngs: BERT(13, T, jnp.float32, rngs, **SIZES, **options))


def both(**options: Any) -> ModelDef[T5]:
    sizes = {**SIZES, "head_width": 2, "decoder_layers": 3, "buckets": 6, "max_distance": 5, **options}
    return ModelDef.of(lambda rngs: T5(13, T, T, jnp.float32, rngs, **sizes))


def states(model: Any, tokens: jax.Array, there: jax.Array) -> jax.Array:
    if isinstance(model, BERT):
        return model.encode(tokens, segment_ids=there)
    return model.decode(tokens, model.encode_source(tokens, segment_ids=there), segment_ids=there)[0]


@pytest.mark.parametrize(("make", "layers"), [(encoder, {"": 2}), (both, {"encoder/": 2, "decoder/": 3})])
def test_experts_that_are_all_alike_are_one_feed_forward_half(make: Any, layers: dict[str, int]) -> None:
    """Gates sum to 1, so that it does not matter whom a router prefers; one that prefers nothing is charged 1 a layer.

    So it is in encoders, and on both sides of an encoder-decoder, of which each has terms of its own.
    """
    alone, model = make(), make(experts=E, balance_loss=0.5, router_z_loss=0.25)
    params, mixed = drawn(alone), drawn(model, 1)
    for path in mixed:
        if "/experts/" in path:
            one = params[path.replace("/experts/", "/")]
            mixed[path] = jnp.repeat(one[:, None], E, axis=1)
        elif path in params:
            mixed[path] = params[path]
    routers = [path for path in mixed if "router" in path]
    tokens, there = jnp.arange(B * T).reshape(B, T) * 5 % 13, jnp.asarray(THERE)
    wanted, got = (
        jax.jit(lambda p, m=m: states(m.bind(p), tokens, there))(p) for m, p in ((alone, params), (model, mixed))
    )
    kept = THERE.astype(bool)
    np.testing.assert_allclose(got[kept], wanted[kept], atol=1e-5)

    @jax.jit
    def collected(params: Any) -> Any:
        with collecting() as terms:
            states(model.bind(params), tokens, there)
        return dict(terms)

    terms = collected({**mixed, **{path: jnp.zeros_like(mixed[path]) for path in routers}})
    assert len(routers) == len(layers) and set(terms) == {f"{s}{t}" for s in layers for t in ("balance", "router_z")}
    rows, count = 2, THERE.sum()
    for stack, number in layers.items():
        np.testing.assert_allclose(terms[f"{stack}balance"], (number * rows, rows, 0.5), rtol=1e-6)
        wanted_z = number * count * np.log(E) ** 2
        np.testing.assert_allclose(terms[f"{stack}router_z"], (wanted_z, count, 0.25), rtol=1e-5)


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_no_inner_activation_is_kept_for_all_experts(remat: Any) -> None:
    model = gpt(remat=remat)

    def total(params: Any) -> Any:
        return model.bind(params).hidden(jnp.zeros((B, T), jnp.int32))[0].sum()

    text = str(jax.make_jaxpr(jax.grad(total))(model.shapes))
    assert f"f32[{B * T},{F}]" in text  # one expert's
    assert f"f32[{E},{B * T},{F}]" not in text and f"f32[2,{E},{B * T},{F}]" not in text


def test_more_experts_than_there_are_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="experts_per_token = 5 is more than there are: experts = 4"):
        nnx.eval_shape(lambda: gpt(experts_per_token=5).init(jax.random.key(0)))
