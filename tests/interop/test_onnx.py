"""Runs exported as ONNX: onnxruntime gives lmlab's numbers for prompts and for steps, whatever their sizes."""

from __future__ import annotations

import json
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.errors import ConfigError
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.interop.onnx import export_onnx
from lmlab.testing.tiny import tiny_run

PROMPTS, LENGTH = [[3, 1, 4], [1], [5, 9, 2, 6]], 3


class Runtime:
    """onnxruntime with the functions of a folder."""

    def __init__(self, folder: Path) -> None:
        runtime = pytest.importorskip("onnxruntime")
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.sessions = {
            name: runtime.InferenceSession(folder / said["file"], providers=["CPUExecutionProvider"])
            for name, said in self.manifest["functions"].items()
        }

    def __call__(self, name: str, **given: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a function by name, those of a cache as its inputs are called."""
        outputs = self.manifest["functions"][name]["outputs"]
        found = self.sessions[name].run(list(outputs), given)
        return {key.removeprefix("new_"): value for key, value in zip(outputs, found, strict=True)}

    def greedy(self, prompts: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B, N), and the logits (B, N, V) that they were taken by."""
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens = np.zeros((len(prompts), lengths.max()), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        cache = self("begin", room=np.zeros((len(prompts), tokens.shape[1] + length), np.int32))
        found, chosen, seen = self("prefill", **cache, tokens=tokens, lengths=lengths), [], []
        for _ in range(length):
            logits = found.pop("logits")
            seen.append(logits)
            chosen.append(logits.argmax(-1).astype(np.int32))
            found = self("step", **found, tokens=chosen[-1])
        return np.stack(chosen, 1), np.stack(seen, 1)


def exported(name: str, loss: str, folder: Path) -> tuple[SavedRun, dict[str, Any], Runtime]:
    for module in ("jax2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(module)
    saved = SavedRun(str(tiny_run(name, loss)))
    params = dict(saved.params())
    export_onnx(saved.program, params, folder / name)
    return saved, params, Runtime(folder / name)


@pytest.mark.parametrize("name", ["gpt", pytest.param("llama", marks=pytest.mark.long), "lstm"])
def test_onnxruntime_writes_the_same(name: str, tmp_path: Path):
    saved, params, runtime = exported(name, "autoregressive", tmp_path)
    tokens, seen = runtime.greedy(PROMPTS, LENGTH)
    decoder = Decoder(saved.program.model, Greedy(), end_of_text=None)
    model = saved.program.model.bind(params)
    own = decoder.complete(params, [np.array(prompt, np.int32) for prompt in PROMPTS], length=LENGTH)
    for number, row in enumerate(own):
        np.testing.assert_array_equal(tokens[number], row)
        read = np.append(PROMPTS[number], row)[None, :-1].astype(np.int32)
        np.testing.assert_allclose(seen[number], model.project(model.hidden(read)[0])[0, -LENGTH:], atol=1e-4)
    texts = np.random.default_rng(1).integers(0, saved.program.data.vocab, (2, 5)).astype(np.int32)
    scores = runtime("score", tokens=texts)["logits"]
    np.testing.assert_allclose(scores, model.project(model.hidden(texts)[0]), atol=1e-4)
    assert (tmp_path / name / "weights.bin").stat().st_size < 10 * sum(x.nbytes for x in params.values()) + 4096 * 99


def test_an_encoder(tmp_path: Path):
    saved, params, runtime = exported("bert", "mlm", tmp_path)
    tokens = np.random.default_rng(1).integers(0, saved.program.data.vocab, (3, 5)).astype(np.int32)
    segments = (np.arange(5) < np.array([[5], [2], [4]])).astype(np.int32)
    types = np.tile(np.array([0, 0, 1, 1, 1], np.int32), (3, 1))
    found = runtime("encode", tokens=tokens, segments=segments, types=types)
    model = saved.program.model.bind(params)
    own, there = model.encode(tokens, segment_ids=segments, type_ids=types), segments > 0
    np.testing.assert_allclose(found["states"][there], own[there], atol=1e-4)
    np.testing.assert_allclose(found["logits"][there], model.project(own)[there], atol=1e-4)
    np.testing.assert_allclose(found["pooled"], model.pool(own), atol=1e-4)


def test_a_model_that_is_not_converted_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'mamba'.*--format stablehlo") as refused:
        exported("mamba", "autoregressive", tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "mamba").exists()


def test_without_the_converter_the_command_says_what_to_install(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    command = ["export", str(tiny_run("lstm", "autoregressive")), str(tmp_path / "out"), "--format", "onnx"]
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(command) == 2
    assert "lmlab[onnx]" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    monkeypatch.setattr(metadata, "version", lambda name: "0.13.0")
    assert main(command) == 2
    assert "--no-deps" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
