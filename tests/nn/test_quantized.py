"""Matrices of integers: what they stand for, by NumPy, and that every way of reading a model reads that."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.nn.quantized import FACTORS, GROUP, SCALE, Codes, Factors, QuantizedDef, groups_of, packed, quantized
from lmlab.testing.tiny import tiny_run
from lmlab.training.quantizing import quantize_params
from lmlab.training.run import Run
from tests.later import later

MODELS = {"gpt": "autoregressive", "lstm": "autoregressive", "mamba": "autoregressive", "bert": "mlm"}


def by_numpy(array: np.ndarray, summed: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers and scales in float64, as qwix has them: the largest number of each group stands for 127.5, or 7.5."""
    axis, most = array.ndim + summed, 2 ** (bits - 1) - 0.5
    groups = groups_of(array.shape[axis], bits)
    apart = np.stack(np.split(array.astype(np.float64), groups, axis), axis)
    scale = np.abs(apart).max(axis + 1, keepdims=True) / most
    integers = np.rint(np.divide(apart, scale, where=scale > 0, out=np.zeros_like(apart)))
    integers = np.clip(integers, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return integers.reshape(array.shape), np.squeeze(scale, axis + 1)


def dequantized(integers: np.ndarray, scale: np.ndarray, summed: int) -> np.ndarray:
    return integers * np.repeat(scale, integers.shape[summed] // scale.shape[summed], summed)


@cache
def run_of(name: str) -> tuple[SavedRun, dict[str, jax.Array]]:
    saved = SavedRun(str(tiny_run(name, MODELS[name])))
    return saved, dict(saved.params())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_numbers_of_four_bits_in_a_byte(axis: int):
    values = np.random.default_rng(3).integers(-8, 8, (2, 4, 6)).astype(np.int8)
    codes = Codes(packed(jnp.asarray(values), axis), jnp.ones([1 if i == axis else n for i, n in enumerate((2, 4, 6))]),
                  4, axis - 3)  # fmt: skip
    assert codes.values.size == values.size // 2
    assert codes.shape == values.shape
    np.testing.assert_array_equal(codes.astype(jnp.float32), values)


REST = [("lstm", "int8", 8), ("mamba", "int8", 8), ("bert", "int8", 8), ("gpt", "int4", 4)]


@pytest.mark.parametrize(
    "name, weights, bits",
    [("gpt", "int8", 8), ("mamba", "int4", 4), *(pytest.param(*one, marks=pytest.mark.long) for one in REST)],
)
def test_a_model_of_integers_is_the_model_of_what_they_stand_for(name: str, weights: str, bits: int):
    saved, params = run_of(name)
    model = quantized(saved.program.model, weights)
    assert isinstance(model, QuantizedDef) and model.summed
    stands_for, codes = dict(params), dict(params)
    for path, summed in model.summed.items():
        integers, scale = by_numpy(np.asarray(params[path]), summed, bits)
        stands_for[path] = jnp.asarray(dequantized(integers, scale, summed), jnp.float32)
        values = jnp.asarray(integers, jnp.int8)
        codes[path] = values if bits == 8 else packed(values, values.ndim + summed)
        codes[f"{path}{SCALE}"] = jnp.asarray(scale, jnp.float32)
    codes = {path: codes[path] for path in model.shapes}
    tokens = np.random.default_rng(1).integers(0, saved.program.data.vocab, (2, 5)).astype(np.int32)

    def logits(model, params):
        bound = model.bind(params)
        states = bound.encode(tokens) if name == "bert" else bound.hidden(tokens)[0]
        return bound.project(states)

    wanted = jax.jit(lambda p: logits(saved.program.model, p))(stands_for)
    np.testing.assert_allclose(jax.jit(lambda p: logits(model, p))(codes), wanted, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda p: logits(model, model.apart(p)))(codes), wanted, atol=1e-5)
    if name != "bert":
        texts = [
            Decoder(one, Greedy(), end_of_text=None).complete(of, [tokens[0, :2], tokens[1, :3]], length=3)
            for one, of in ((model, codes), (saved.program.model, stands_for))
        ]
        np.testing.assert_array_equal(*texts)


@pytest.mark.parametrize("bits, size", [(8, 130), (4, 130), (4, 2 * GROUP)])
@pytest.mark.parametrize("summed", [-1, -2])
def test_qwix_rounds_to_the_nearest_multiple_of_the_scale(bits: int, size: int, summed: int):
    pytest.importorskip("qwix")
    from lmlab.training.quantizing import _codes

    shape = (3, 5, size) if summed == -1 else (3, size, 5)
    array = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    codes = Codes(*_codes(jnp.asarray(array), summed, jnp.int8 if bits == 8 else jnp.int4), bits, summed)
    _, scale = by_numpy(array, summed, bits)
    np.testing.assert_allclose(codes.scale, scale, rtol=1e-6)
    off = np.abs(np.asarray(codes.astype(jnp.float32)) - array)
    assert (off <= np.repeat(scale, size // scale.shape[summed], summed) * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("weights", ["w8a8", "fp8"])
def test_a_product_is_that_of_small_numbers_and_their_scales(weights: str):
    pytest.importorskip("qwix")
    from lmlab.training.quantizing import _codes

    draw, number = np.random.default_rng(5), FACTORS[weights]
    kernel, x = (draw.normal(size=shape).astype(np.float32) for shape in ((67, 11), (2, 3, 67)))
    x[0, 1] *= 100  # a token of its own scale
    # Minus the largest would stand half-way between two integers: which it becomes is the last bit's to say.
    kernel *= np.sign(kernel.max(0) + kernel.min(0))
    x *= np.sign(x.max(-1) + x.min(-1))[..., None]
    most = 127.5 if weights == "w8a8" else 448.0  # of e4m3
    small = lambda values, scale: np.asarray(  # noqa: E731
        jnp.asarray(np.clip(np.rint(values / scale), -128, 127) if weights == "w8a8" else values / scale, number),
        np.float64,
    )  # fmt: skip
    by_column = np.abs(kernel).max(0, keepdims=True) / np.float32(most)
    by_token = np.abs(x).max(-1, keepdims=True) / np.float32(most)
    wanted = (small(x, by_token) @ small(kernel, by_column)) * by_token * by_column
    factors = Factors(*_codes(jnp.asarray(kernel), -2, number), 8, -2)
    assert factors.values.dtype == number
    found = jax.jit(Factors.multiply)(factors, jnp.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(found - x @ kernel).max() > 1e-3  # it is not the product of float32


@pytest.mark.parametrize("weights, far", [("w8a8", 0.05), pytest.param("fp8", 0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["gpt", *later(["lstm", "mamba", "bert"])])
def test_a_model_of_such_products_is_near_the_model(name: str, weights: str, far: float):
    pytest.importorskip("qwix")
    saved, params = run_of(name)
    model = quantized(saved.program.model, weights)
    assert isinstance(model, QuantizedDef) and model.multiplied
    codes = quantize_params(model, params)
    tokens = np.random.default_rng(1).integers(0, saved.program.data.vocab, (2, 5)).astype(np.int32)

    def logits(model, params):
        bound = model.bind(params)
        states = bound.encode(tokens) if name == "bert" else bound.hidden(tokens)[0]
        return bound.project(states)

    exact = jax.jit(lambda p: logits(saved.program.model, p))(params)
    near = jax.jit(lambda p: logits(model, p))(codes)
    alone = quantized(saved.program.model, "int8")
    alone = jax.jit(lambda p: logits(alone, p))(quantize_params(alone, params))
    assert 0 < float(jnp.std(near - exact) / jnp.std(exact)) < far
    assert np.abs(near - alone).max() > 0  # inputs are rounded, too
    np.testing.assert_allclose(jax.jit(lambda p: logits(model, model.apart(p)))(codes), near, atol=1e-5)


@pytest.mark.parametrize("weights", ["w8a8", *later(["int4", "fp8"])])
def test_a_run_of_integers_is_measured_and_sampled_like_any(weights: str, tmp_path: Path, capfd: pytest.CaptureFixture):
    pytest.importorskip("qwix")
    source, made = str(tiny_run("gpt", "autoregressive")), str(tmp_path / weights)
    assert main(["quantize", source, "--run", made, "--weights", weights]) == 0
    assert weights in capfd.readouterr().out
    assert Run(made).resolved.spec.kwargs["weights"] == weights
    assert main(["generate", made, "--prompt", "1 2", "--length", "3", "--temperature", "0"]) == 0
    found = SavedRun(made)
    wanted = quantize_params(found.program.model, run_of("gpt")[1])
    params = found.params()
    assert params.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(params[path], value)
    assert main(["quantize", made, "--run", str(tmp_path / "again")]) == 2
    assert "already" in capfd.readouterr().err
    assert main(["quantize", source, "--run", made]) == 6
    assert "holds a run" in capfd.readouterr().err


def test_integers_do_not_learn(tmp_path: Path, capfd: pytest.CaptureFixture):
    config = tiny_run("lstm", "autoregressive") / "config.gin"
    words = ["train", str(config), "--run", str(tmp_path / "run"), "--set", "experiment.weights = 'int8'"]
    assert main(words) == 2
    assert "lmlab quantize" in capfd.readouterr().err
    assert main([*words, "--set", "experiment.adapter = @lora"]) == 2
    assert "lmlab merge" in capfd.readouterr().err
