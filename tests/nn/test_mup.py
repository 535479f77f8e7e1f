"""muP against the rules of table 8 of Tensor Programs V, and against the standard parametrisation at its base."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.interop import families
from lmlab.models.gpt import GPT
from lmlab.models.llama import Llama
from lmlab.nn.functional import ModelDef
from lmlab.optim.optimizers import AdamW
from lmlab.training.program import Program

V, T = 53, 7
TOKENS = jax.random.randint(jax.random.key(1), (2, T), 0, V)


def made(kind=GPT, **given) -> ModelDef:
    fixed = {"layers": 2, "heads": 3, "dtype": jnp.float32}
    return ModelDef.of(lambda rngs: kind(V, T, rngs=rngs, **{**fixed, **given}))


@pytest.mark.parametrize("kind", [GPT, Llama])
def test_at_the_base_it_is_the_standard_parametrisation_to_the_bit(kind):
    plain, base = made(kind, width=12), made(kind, width=12, mup_base_width=12)
    assert base.rates == plain.rates == {}
    ours, theirs = plain.init(jax.random.key(0)), base.init(jax.random.key(0))
    assert all((ours[path] == theirs[path]).all() for path in ours) and ours.keys() == theirs.keys()
    assert (plain.bind(ours).logits(TOKENS) == base.bind(theirs).logits(TOKENS)).all()


@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_and_rates_follow_the_table(tied):
    wide = made(width=192, mup_base_width=12, tie_embeddings=tied)  # m = 16
    params = wide.init(jax.random.key(0))
    std = {path: float(value.std()) for path, value in params.items()}
    for path in ("embedding/embedding", "positions/embedding", *([] if tied else ["head/kernel"])):
        assert std[path] == pytest.approx(0.02, rel=0.05) and path not in wide.rates
    assert std["blocks/attention/qkv/kernel"] == pytest.approx(0.02 / 4, rel=0.03)
    assert std["blocks/mlp/down/kernel"] == pytest.approx(0.02 / 4 / 2, rel=0.03)  # two blocks: another 1 / sqrt(2 L)
    kernels = {path for path, role in wide.roles.items() if role == "kernel" and path.startswith("blocks/")}
    assert wide.rates == dict.fromkeys(kernels, 1 / 16) and len(kernels) == 4


@pytest.mark.parametrize("kv_heads", [None, 1])
def test_scores_are_divided_by_the_width_of_a_head_and_logits_by_the_width(kv_heads):
    """The same weights under both parametrisations: queries and states scaled by hand give what muP gives."""
    plain = made(width=48, heads=3, kv_heads=kv_heads)  # K = 16, of the base 4
    wide = made(width=48, heads=3, kv_heads=kv_heads, mup_base_width=12)
    params = plain.init(jax.random.key(2))
    params = {path: 8 * value if path.startswith("blocks") else value for path, value in params.items()}
    module, wanted = wide.bind(params), plain.bind(params)
    by_hand = dict(params)
    for name in ("kernel", "bias"):  # scores q k / sqrt(16) become q k sqrt(4) / 16
        if kv_heads is None:
            path = f"blocks/attention/qkv/{name}"
            parts = np.array(by_hand[path]).reshape(*by_hand[path].shape[:-1], 3, 3, 16)  # (heads, q k v, K)
            parts[..., 0, :] *= np.sqrt(4) / np.sqrt(16)
            by_hand[path] = jnp.asarray(parts.reshape(by_hand[path].shape))
        else:
            by_hand[f"blocks/attention/q/{name}"] = by_hand[f"blocks/attention/q/{name}"] / 2
    found = module.logits(TOKENS)
    expected = plain.bind(by_hand).logits(TOKENS) / 4
    assert jnp.allclose(found, expected, atol=1e-5) and not jnp.allclose(found, wanted.logits(TOKENS) / 4, atol=1e-3)
    looked = plain.bind(by_hand).attention_weights(TOKENS)
    assert jnp.allclose(module.attention_weights(TOKENS), looked, atol=1e-5)
    cache = module.init_cache(2, T)
    steps = []
    for t in range(T):
        state, cache = module.hidden(TOKENS[:, t : t + 1], cache=cache)
        steps.append(module.project(state))
    assert jnp.allclose(jnp.concatenate(steps, 1), found, atol=1e-5)


def test_heads_of_the_base_decide_about_the_scores():
    assert made(width=48, heads=12, mup_base_width=12, mup_base_heads=3).bind  # as wide as those of the base: K = 4
    module = nnx.eval_shape(lambda: GPT(V, T, jnp.float32, nnx.Rngs(0), width=48, heads=12, layers=1,
                                        mup_base_width=12, mup_base_heads=3))  # fmt: skip
    assert module.blocks.attention.query_factor == 1.0 and module.widening.ratio == 4.0


def test_adamw_moves_kernels_by_their_rate_and_decays_all_alike():
    params = {"blocks/k": jnp.ones((2, 3)), "embedding": jnp.ones((5, 2)), "blocks/b": jnp.ones(3)}
    roles = {"blocks/k": "kernel", "embedding": "embedding", "blocks/b": "bias"}
    rule = AdamW(0.1, weight_decay=0.5, rates={"blocks/k": 0.25})
    transformation = rule.transformation(roles)
    grads = {path: jnp.full_like(value, 3.0) for path, value in params.items()}
    updates, _ = transformation.update(grads, transformation.init(params), params, step=jnp.int32(0))
    # Adam's first step is the sign of the gradient.
    expected = {"blocks/k": -0.1 * (0.25 + 0.5), "embedding": -0.1 * (1 + 0.5), "blocks/b": -0.1}
    assert {path: float(value.ravel()[0]) for path, value in updates.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "config"), [(GPT, families._gpt2_config), (Llama, families._llama_config)])
def test_a_layout_of_others_that_has_no_such_factors_refuses_them(kind, config):
    values = {name: parameter.default for name, parameter in inspect.signature(kind.__init__).parameters.items()}
    assert config(values)
    with pytest.raises(ConfigError, match="mup_base_width = 32"):
        config({**values, "mup_base_width": 32})


GIN = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 3
experiment.global_batch_size = 4
experiment.seq_len = 7
adamw.learning_rate = 0.01
mesh.data = 1
gpt.layers = 1
gpt.heads = 3
gpt.width = 24
gpt.mup_base_width = 12
"""


def program(tmp_path, text: str = "") -> Program:
    path = tmp_path / "mine.gin"
    path.write_text(GIN)
    return Program(resolve([str(path)], [text] if text else []))


def test_the_program_hands_the_rates_to_the_rule_wherever_it_stands(tmp_path):
    for text in ("", "experiment.optimizer = @layerwise; layerwise.optimizer = @adamw"):
        found = program(tmp_path, text)
        rule = found.recipe.optimizer
        assert getattr(rule, "optimizer", rule).rates == found.model.rates and len(found.model.rates) == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("experiment.optimizer = @sgd; sgd.learning_rate = 0.1; adamw.learning_rate = None", "'sgd' does not know of"),
        ("gpt.experts = 2", "no rule for routers"),
        ("gpt.mup_base_width = None; gpt.mup_base_heads = 3", "mup_base_heads needs gpt.mup_base_width"),
        ("gpt.mup_base_width = 0", "mup_base_width"),
    ],
)
def test_what_mup_cannot_do_is_refused(tmp_path, text, why):
    if "sgd" in text:
        (tmp_path / "mine.gin").write_text(GIN.replace("adamw", "sgd"))
        with pytest.raises(ConfigError, match=why):
            Program(resolve([str(tmp_path / "mine.gin")]))
        return
    with pytest.raises(ConfigError, match=why):
        program(tmp_path, text)
