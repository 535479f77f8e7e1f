"""Models in GGUF files against the same weights in Transformers' layout, and files that lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.data.tokenizers.hf import TokenizerFile
from lmlab.errors import DataError
from lmlab.generation.saved import SavedRun
from lmlab.interop.gguf_file import GGUF, NAMES

gguf = pytest.importorskip("gguf")
safetensors = pytest.importorskip("safetensors.numpy")

WIDTH, HEADS, KV, INNER, LAYERS = 24, 3, 1, 64, 2
KIND = gguf.GGMLQuantizationType.Q8_0
PIECES = ["<|endoftext|>", "<|user|>", *(chr(c) for c in range(33, 127)), "Ġ", "th", "the", "Ġthe"]
MERGES = ["t h", "th e", "Ġ the"]
CONFIG = {
    "model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV, "intermediate_size": INNER, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
    "rope_theta": 500.0, "vocab_size": len(PIECES), "tie_word_embeddings": False,
}  # fmt: skip


def weights() -> dict[str, np.ndarray]:
    """By Transformers' names."""
    draw, v, k = np.random.default_rng(4), len(PIECES), WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (v, WIDTH), "model.norm": (WIDTH,), "lm_head": (v, WIDTH),
    }  # fmt: skip
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        shapes |= {
            f"{block}input_layernorm": (WIDTH,), f"{block}post_attention_layernorm": (WIDTH,),
            f"{block}self_attn.q_proj": (WIDTH, WIDTH), f"{block}self_attn.k_proj": (KV * k, WIDTH),
            f"{block}self_attn.v_proj": (KV * k, WIDTH), f"{block}self_attn.o_proj": (WIDTH, WIDTH),
            f"{block}mlp.gate_proj": (INNER, WIDTH), f"{block}mlp.up_proj": (INNER, WIDTH),
            f"{block}mlp.down_proj": (WIDTH, INNER),
        }  # fmt: skip
    found = {f"{name}.weight": draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: eight_bits(value) if "down_proj" in name else value for name, value in found.items()}


def eight_bits(value: np.ndarray) -> np.ndarray:
    """Every 32 numbers of a row as multiples, from -127 to 127, of a half-precision number: llama.cpp's Q8_0."""
    rows = value.reshape(-1, 32)
    scale = np.abs(rows).max(1, keepdims=True) / 127
    whole = np.sign(rows / scale) * np.floor(np.abs(rows / scale) + 0.5)
    return (whole * scale.astype(np.float16).astype(np.float32)).reshape(value.shape).astype(np.float32)


def theirs(name: str) -> str:
    """llama.cpp's name of a tensor."""
    back = {their: own for own, their in NAMES.items()}
    parts = name.removesuffix(".weight").split(".")
    if parts[1:2] != ["layers"]:
        return f"{back['.'.join(parts)]}.weight"
    return f"blk.{parts[2]}.{back['.'.join(parts[3:])]}.weight"


def neighbours(value: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of queries and keys: first, first of the second half, second, ..."""
    k = value.shape[0] // heads
    rows = [head * k + half * k // 2 + i for head in range(heads) for i in range(k // 2) for half in range(2)]
    return value[rows]


def write_gguf(path: Path, changed: Mapping[str, Any] | None = None, split: str = "smollm") -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    said = {
        "block_count": LAYERS, "context_length": 16, "embedding_length": WIDTH, "feed_forward_length": INNER,
        "head_count": HEADS, "head_count_kv": KV, "layer_norm_rms_eps": 1e-5, "rope_freq_base": 500.0,
        **(changed or {}),
    }  # fmt: skip
    for name, value in said.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(PIECES)
    writer.add_token_types([3, 3, *[1] * (len(PIECES) - 2)])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, value in weights().items():
        heads = HEADS if "q_proj" in name else KV if "k_proj" in name else None
        there = value if heads is None else neighbours(value, heads)
        if "down_proj" in name:
            writer.add_tensor(theirs(name), gguf.quantize(there, KIND), raw_dtype=KIND)
        else:
            writer.add_tensor(theirs(name), there)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_it_is_the_model_of_the_same_weights_in_transformers_layout(file: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors.save_file(weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with GGUF(file) as found:
        assert found.config == CONFIG | {"vocab_size": len(PIECES)}
        found.write_tokenizer(folder)
    assert main(["import", str(file), "--run", str(tmp_path / "a")]) == 0
    assert main(["import", str(folder), "--run", str(tmp_path / "b")]) == 0
    one, other = SavedRun(str(tmp_path / "a")), SavedRun(str(tmp_path / "b"))
    params = one.params()
    for path, value in other.params().items():
        np.testing.assert_array_equal(params[path], value)
    assert one.program.tokenizer.encode("the 12").tolist() == other.program.tokenizer.encode("the 12").tolist()
    assert main(["generate", str(tmp_path / "a"), "--prompt", "the", "--length", "3"]) == 0


def test_the_tokenizer_splits_digits_and_keeps_what_is_special(file: Path, tmp_path: Path) -> None:
    with GGUF(file) as found:
        path = found.write_tokenizer(tmp_path)
    assert found.roles == {"end_of_text": "<|endoftext|>"}
    tokenizer = TokenizerFile(str(path), found.roles).fit(())
    there = [PIECES[i] for i in tokenizer.encode("the the 12")]
    assert there == ["the", "Ġthe", "Ġ", "1", "2"]
    assert tokenizer.decode(tokenizer.encode("the the 12")) == "the the 12"
    assert tokenizer.encode_marked("<|user|>the").tolist() == [1, PIECES.index("the")]
    assert tokenizer.chat_template.render([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.parametrize(
    "changed, split, message",
    [
        ({"expert_count": 4}, "smollm", "mixture of experts"),
        ({"rope_scaling_type": gguf.RopeScalingType.YARN}, "smollm", "scaled rotary positions"),
        ({"embedding_length": 48}, "smollm", ", 24), and by config.json it must be ("),
        ({"block_count": 3}, "smollm", "has no tensor layers.2"),
        ({"head_count": 0}, "smollm", "is no size"),
        ({}, "llama-bpe", "Put the model's tokenizer.json beside the file"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, capsys, changed: dict, split: str, message: str) -> None:
    path = write_gguf(tmp_path / "x.gguf", changed, split)
    assert main(["import", str(path), "--run", str(tmp_path / "run")]) in (2, 3)
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_no_shortened_or_lying_file_takes_memory_or_shows_a_traceback(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    path = tmp_path / "broken.gguf"
    counts = len("GGUF") + 4
    name = whole.index(b"blk.0.attn_norm.weight")
    dims = name + len(b"blk.0.attn_norm.weight") + 4
    merges = whole.index(b"tokenizer.ggml.merges") + len(b"tokenizer.ggml.merges") + 8
    huge = struct.pack("<Q", 2**60)
    for place in (counts, counts + 8, dims, merges):
        path.write_bytes(whole[:place] + huge + whole[place + 8 :])
        with pytest.raises(DataError, match="no GGUF file"):
            GGUF(path)
    for length in (0, 3, 20, 200, merges + 4, name + 5, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"no GGUF file|cannot be read"):
            GGUF(path)
    flips = np.random.default_rng(0).integers(0, dims, 60)
    for place in flips:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with GGUF(path) as found:
                found.write_tokenizer(tmp_path)
        except DataError as error:
            assert str(path) in str(error)
