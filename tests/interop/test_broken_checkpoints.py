"""Checkpoint folders that are damaged, lie or hold something else: one line each, and no run folder."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.generation.saved import SavedRun
from lmlab.interop.hugging_face import export_checkpoint
from lmlab.testing.tiny import small_files
from lmlab.training.loop import train

safetensors = pytest.importorskip("safetensors.numpy")

GPT = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
experiment.tokenizer = @hf
hf.path = '{folder}/tokenizer.json'
text_files.train = '{folder}/text/*.txt'
text_files.valid_share = 0.2
text_files.test_share = 0.2
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 4
experiment.seq_len = 13
experiment.evaluators = []
experiment.hooks = []
experiment.writers = []
experiment.partitioner = @mesh
mesh.data = 1
gpt.width = 12
gpt.heads = 3
gpt.layers = 2
adamw.learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2, written by lmlab."""
    from lmlab.config import resolve

    folder = tmp_path_factory.mktemp("exported")
    train(resolve([], [GPT.format(folder=small_files())]), folder / "run")
    saved = SavedRun(str(folder / "run"))
    export_checkpoint(saved.program, saved.params(), folder / "out")
    return folder / "out"


@pytest.fixture
def broken(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "checkpoint"))


def call(capfd: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    capfd.readouterr()
    return main([str(word) for word in words]), *capfd.readouterr()


def set_config(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def set_tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = safetensors.load_file(folder / "model.safetensors")
        change(tensors)
        safetensors.save_file(tensors, folder / "model.safetensors")

    return write


def set_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Changes what the file says of its tensors, and leaves the bytes."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return write


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(files: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))

    return write


def first(header: dict[str, Any]) -> dict[str, Any]:
    return header["transformer.wte.weight"]


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config.json cannot be read: No such file"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config.json is no JSON"),
    "no object": (lambda folder: (folder / "config.json").write_text("[]"), r"config.json holds no object"),
    "another kind": (
        set_config(model_type="opt"),
        r"model_type = 'opt'; lmlab reads gpt2, llama, mistral, bert, mamba, t5",
    ),
    "no width": (set_config(n_embd=None), r"does not say n_embd"),
    "words for numbers": (set_config(n_layer="two"), r"n_layer = 'two' is no int"),
    "less than nothing": (set_config(n_layer=-1), r"n_layer = -1 is no size"),
    "an enormous width": (set_config(n_embd=3 * 10**8, n_head=3), r"wte.weight is \(257, 12\).*\(257, 300000000\)"),
    "more blocks": (set_config(n_layer=3), r"no tensor h.2"),
    "fewer blocks": (set_config(n_layer=1), r"no tensor h.1.*fewer blocks"),
    "other heads": (set_config(n_head=5), r"gpt.heads = 5"),
    "other positions": (set_config(n_positions=14), r"wpe.weight is \(13, 12\).*must be \(14, 12\)"),
    "a larger vocabulary": (set_config(vocab_size=300), r"wte.weight is \(257, 12\).*must be \(300, 12\)"),
    "a smaller vocabulary": (set_config(vocab_size=200), r"hf.ids = 200: .* names 257 ids"),
    "another activation": (set_config(activation_function="mish"), r"activation_function = 'mish'"),
    "another attention": (set_config(scale_attn_weights=False), r"scale_attn_weights = False is what lmlab's model"),
    "a pickle": (as_pickle, r"pytorch_model.bin is a pickle.*save_pretrained"),
    "no tensors": (lambda folder: (folder / "model.safetensors").unlink(), r"has no model.safetensors and no"),
    "cut": (cut, r"cannot be read as safetensors"),
    "no safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 99), r"cannot be read as safetensors"),
    "a shape that lies": (set_header(lambda h: first(h).update(shape=[257, 13])), r"cannot be read as safetensors"),
    "a size that lies": (
        set_header(lambda h: first(h).update(shape=[2**40, 12], data_offsets=[0, 2**40 * 48])),
        r"cannot be read as safetensors",
    ),
    "a missing tensor": (set_tensors(lambda t: t.pop("transformer.h.1.mlp.c_fc.bias")), r"no tensor h.1.mlp.c_fc.bias"),
    "no embedding": (set_tensors(lambda t: t.pop("transformer.wte.weight")), r"no tensor wte.weight"),
    "a strange tensor": (
        set_tensors(lambda t: t.update({"transformer.h.0.attn.gate": np.zeros(3, np.float32)})),
        r"the tensor transformer.h.0.attn.gate has no place in the model 'gpt'",
    ),
    "another shape": (
        set_tensors(lambda t: t.update({"transformer.ln_f.bias": np.zeros(11, np.float32)})),
        r"ln_f.bias is \(11,\), and by config.json it must be \(12,\)",
    ),
    "whole numbers": (
        set_tensors(lambda t: t.update({"transformer.ln_f.bias": np.zeros(12, np.int32)})),
        r"no tensor ln_f.bias",
    ),
    "an index of nothing": (index({}), r"is no index"),
    "an index of paths": (index({"transformer.wte.weight": "../a.safetensors"}), r"is no index"),
    "an index of a missing file": (index({"x": "b.safetensors"}), r"b.safetensors cannot be read"),
    "a broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"no tokenizer.json that"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_refused_by_one_line(
    name: str, broken: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    breaks, message = BROKEN[name]
    breaks(broken)
    code, _, said = call(capfd, "import", broken, "--run", tmp_path / "run")
    assert code in (2, 3), said
    assert re.search(message, said), said
    assert said.count("\n") == 1 and "bug" not in said
    assert not (tmp_path / "run").exists()


def test_an_imported_run_writes_is_measured_and_goes_on(
    broken: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    data = f"experiment.dataset = @text_files; text_files.train = '{small_files()}/text/*.txt'"
    share = "text_files.valid_share = 0.2; text_files.test_share = 0.2"
    how = "experiment.steps = 3; experiment.hooks = []; mesh.data = 1"
    run = tmp_path / "run"
    code, out, _ = call(capfd, "import", broken, "--run", run, "--set", f"{data}; {share}; {how}")
    assert code == 0 and "16 read of" in out
    code, _, said = call(capfd, "import", broken, "--run", run)
    assert code == 6 and "holds a run" in said
    for step in (0, 3):
        code, written, _ = call(capfd, "generate", run, "--prompt", "The", "--length", 9, "--temperature", 0)
        assert code == 0 and written.startswith("The")
        code, out, _ = call(capfd, "eval", run)
        assert code == 0 and "bits_per_byte" in out
        if step == 0:
            assert call(capfd, "train", run / "config.gin", "--run", run)[0] == 0
    assert SavedRun(str(run)).params(3)


def test_what_transformers_does_not_have_is_not_written(
    exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    run = exported.parent / "run"
    code, _, said = call(capfd, "export", run, exported)
    assert code == 6 and "not empty" in said
    from lmlab.config import resolve

    given = GPT.format(folder=small_files())
    others = {
        "gpt.positions = 'rotary'": "gpt.positions = 'rotary': GPT-2 has 'learned' only",
        "gpt.window = 5": "gpt.window = 5: GPT-2 has None only",
        "experiment.model = @lstm; lstm.width = 12": "the model 'lstm' has no counterpart",
    }
    for number, (change, message) in enumerate(others.items()):
        text = "\n".join(line for line in given.splitlines() if "lstm" not in change or not line.startswith("gpt."))
        train(resolve([], [text, change, "experiment.steps = 1"]), tmp_path / f"run{number}")
        code, _, said = call(capfd, "export", tmp_path / f"run{number}", tmp_path / "out")
        assert code == 2 and message in said, said
        assert not (tmp_path / "out").exists()
