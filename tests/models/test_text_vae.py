"""The text VAE against a computation step by step in NumPy, float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import CausalLM, LatentLM
from lmlab.models.text_vae import TextVAE
from lmlab.nn.functional import ModelDef

V, T, B, Z, E, D, L = 13, 7, 3, 2, 5, 11, 2
THERE = (np.arange(T) < np.array([[T], [T - 3], [2]])).astype(np.int32)


def vae(**options: Any) -> ModelDef[TextVAE]:
    options = {"latent": Z, "embedding": E, "width": D, "layers": L, "init_scale": 0.4, **options}
    return ModelDef.of(lambda rngs: TextVAE(V, T, jnp.float32, rngs, **options))


def parameters(model: ModelDef[TextVAE]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    return {path: draw.normal(0, 0.4, shape.shape).astype(np.float32) for path, shape in model.shapes.items()}


def tokens() -> np.ndarray:
    return np.random.default_rng(5).integers(0, V, (B, T)).astype(np.int32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def stack(params: dict[str, np.ndarray], side: str, row: np.ndarray, z: np.ndarray | None) -> tuple[Any, Any]:
    """The states of one row in all layers, token by token, and the last layer's last output."""
    p = {path: np.float64(value) for path, value in params.items()}
    c = np.zeros((L, D))
    if z is not None and f"{side}/first/kernel" in p:
        c = (z @ p[f"{side}/first/kernel"]).reshape(L, D)
    h, outputs = np.tanh(c), []
    for token in row:
        x = p[f"{side}/embedding/embedding"][token]
        for layer in range(L):
            at = f"{side}/blocks/{layer}"
            kernel = p[f"{at}/input/kernel"]
            if layer == 0 and f"{side}/latent/kernel" in p:
                assert z is not None
                x, kernel = np.concatenate([x, z]), np.concatenate([kernel, p[f"{side}/latent/kernel"]])
            gates = x @ kernel + p[f"{at}/input/bias"] + h[layer] @ p[f"{at}/recurrent/kernel"]
            i, f, g, o = np.split(gates, 4)
            c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
            h[layer] = sigmoid(o) * np.tanh(c[layer])
            x = h[layer]
        outputs.append(x.copy())
    return np.array(outputs), h[-1]


@pytest.mark.parametrize("latent_to", ["both", "inputs", "state"])
def test_states_and_posterior_are_those_of_a_loop_over_tokens(latent_to: str) -> None:
    model = vae(latent_to=latent_to)
    params, ids = parameters(model), tokens()
    z = np.random.default_rng(7).normal(size=(B, Z))

    @jax.jit
    def read(params: Any) -> Any:
        bound = model.bind(params)
        states, _ = bound.hidden_given(ids, jnp.float32(z), segment_ids=THERE)
        return bound.posterior(ids, segment_ids=THERE), states, bound.project(states)

    posterior, states, logits = read(params)
    for row, length in enumerate(THERE.sum(1)):
        expected, _ = stack(params, "decoder", ids[row, :length], z[row])
        np.testing.assert_allclose(states[row, :length], expected, atol=2e-6)
        head = np.float64(params["decoder/head/kernel"])
        np.testing.assert_allclose(logits[row, :length], expected @ head, atol=5e-6)
        _, last = stack(params, "encoder", ids[row, :length], None)
        mean, log_variance = np.split(last @ np.float64(params["encoder/posterior/kernel"]), 2)
        np.testing.assert_allclose(posterior.mean[row], mean, atol=2e-6)
        np.testing.assert_allclose(posterior.log_variance[row], log_variance, atol=2e-6)


@pytest.mark.parametrize(("latent_to", "told"), [("both", (0, 1)), ("inputs", (0,)), ("state", (1,))])
def test_the_decoder_is_told_the_latent_where_it_is_asked_to(latent_to: str, told: tuple[int, ...]) -> None:
    paths = ("decoder/latent/kernel", "decoder/first/kernel")
    assert [path for path in paths if path in vae(latent_to=latent_to).shapes] == [paths[i] for i in told]


def test_encoder_and_decoder_share_nothing_and_are_all_there_is() -> None:
    assert {path.split("/")[0] for path in vae().shapes} == {"encoder", "decoder"}
    bound = vae().bind(parameters(vae()))
    assert isinstance(bound, LatentLM) and not isinstance(bound, CausalLM)


def test_it_starts_as_in_the_paper() -> None:
    model = vae(layers=1, embedding=50, width=50, init_scale=0.01)
    params = jax.jit(model.init)(jax.random.key(0))
    for path, value in params.items():
        bound = {"kernel": 0.01, "embedding": 0.1, "bias": 0.0}[model.roles[path]]
        assert np.abs(value).max() <= bound and np.abs(value).max() >= 0.8 * bound, path
