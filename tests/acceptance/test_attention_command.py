"""`lmlab attention` on a run of two steps: a picture, the numbers, and what is refused."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.training.loop import train
from lmlab.training.run import Run

TINY = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
experiment.tokenizer = @bytes
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 4
experiment.seq_len = 16
experiment.writers = []
experiment.evaluators = []
experiment.hooks = []
gpt.width = 12
gpt.heads = 3
gpt.layers = 2
gpt.init_std = 0.5
adamw.learning_rate = 0.01
mesh.data = 1
"""
TEXT = "tö be\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attention")
    (folder / "corpus.txt").write_text("to be or not to be, that is the question\n" * 40)
    shares = "text_files.split_by = 'position'; text_files.valid_share = 0.2; text_files.test_share = 0.2"
    train(resolve([], [TINY, f"text_files.train = '{folder}/corpus.txt'", shares]), folder / "run")
    return folder / "run"


def numbers(text: str) -> tuple[dict[str, Any], np.ndarray]:
    found = json.loads(text)
    return found, np.array(found["weights"])


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, in the first chunk of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    return struct.unpack(">II", data[16:24])


def test_the_numbers_are_the_models_own(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["attention", str(run), TEXT, "--json", str(tmp_path / "all.json")]) == 0
    found, weights = numbers((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert found["reading"] == found["read"] == ["t", "\\xc3", "\\xb6", "␣", "b", "e", "↵"]
    assert found["layers"] == [1, 2] and found["heads"] == [1, 2, 3]
    known = Run(run)
    model = known.program.model.bind(jax.device_get(known.params))
    wanted = jax.jit(lambda: model.attention_weights(np.frombuffer(TEXT.encode(), np.uint8)[None].astype(int)))()
    np.testing.assert_allclose(weights, wanted[:, 0], atol=1e-6)
    assert not (run / "attention.png").exists()
    capfd.readouterr()
    assert main(["attention", str(run), TEXT, "--json", "-", "--layer", "2", "--head", "3"]) == 0
    found, part = numbers(capfd.readouterr().out)
    assert (found["layers"], found["heads"], part.shape) == ([2], [3], (1, 1, 7, 7))
    np.testing.assert_array_equal(part[0, 0], weights[1, 2])


def test_a_map_of_each_head_or_of_one_with_its_tokens(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["attention", str(run), TEXT]) == 0
    width, height = size_of(run / "attention.png")
    assert width > height >= 200  # three heads beside each other, two layers
    one = tmp_path / "one.png"
    assert main(["attention", str(run), TEXT + "日本", "--layer", "1", "--head", "2", "--out", str(one)]) == 0
    assert min(size_of(one)) > 300


def test_what_is_refused(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        return main(["attention", str(run), *words]), capfd.readouterr().err

    assert said(TEXT, "--layer", "3") == (2, "lmlab: --layer 3: the model has the layers 1 to 2.\n")
    assert said(TEXT, "--own")[0] == 2
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, error = said(TEXT, "--out", str(tmp_path / "x.png"))
    assert code == 2 and "drawing needs matplotlib: pip install 'lmlab[plot]'" in error
