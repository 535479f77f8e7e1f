"""Matrices of integers: what they stand for, by NumPy, and that every way of reading a model reads that."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.nn.quantized import GROUP, SCALE, Codes, QuantizedDef, groups_of, packed, quantized
from lmlab.testing.tiny import tiny_run
from lmlab.training.quantizing import quantize_params
from lmlab.training.run import Run

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


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[SavedRun, dict[str, jax.Array]]]:
    found = {name: SavedRun(str(tiny_run(name, loss))) for name, loss in MODELS.items()}
    return {name: (saved, dict(saved.params())) for name, saved in found.items()}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_numbers_of_four_bits_in_a_byte(axis: int):
    values = np.random.default_rng(3).integers(-8, 8, (2, 4, 6)).astype(np.int8)
    codes = Codes(packed(jnp.asarray(values), axis), jnp.ones([1 if i == axis else n for i, n in enumerate((2, 4, 6))]),
                  4, axis - 3)  # fmt: skip
    assert codes.values.size == values.size // 2
    assert codes.shape == values.shape
    np.testing.assert_array_equal(codes.astype(jnp.float32), values)


@pytest.mark.parametrize(
    "name, weights, bits", [*((name, "int8", 8) for name in MODELS), ("gpt", "int4", 4), ("mamba", "int4", 4)]
)
def test_a_model_of_integers_is_the_model_of_what_they_stand_for(runs: dict, name: str, weights: str, bits: int):
    saved, params = runs[name]
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
    codes = Codes(*_codes(jnp.asarray(array), summed, bits), bits, summed)
    _, scale = by_numpy(array, summed, bits)
    np.testing.assert_allclose(codes.scale, scale, rtol=1e-6)
    off = np.abs(np.asarray(codes.astype(jnp.float32)) - array)
    assert (off <= np.repeat(scale, size // scale.shape[summed], summed) * (0.5 + 1e-4)).all()


def test_a_run_of_integers_is_measured_and_sampled_like_any(runs: dict, tmp_path: Path, capfd: pytest.CaptureFixture):
    pytest.importorskip("qwix")
    source, made = str(tiny_run("gpt", "autoregressive")), str(tmp_path / "int4")
    assert main(["quantize", source, "--run", made, "--weights", "int4"]) == 0
    assert "int4" in capfd.readouterr().out
    assert Run(made).resolved.spec.kwargs["weights"] == "int4"
    assert main(["generate", made, "--prompt", "1 2", "--length", "3", "--temperature", "0"]) == 0
    found = SavedRun(made)
    wanted = quantize_params(found.program.model, runs["gpt"][1])
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
