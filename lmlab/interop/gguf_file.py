"""A model in one GGUF file, as llama.cpp has it, seen as a checkpoint of Transformers: a Llama, its numbers of few bits
made float32 by the package `gguf`.

A file's counts, lengths and shapes are compared with its size before anything of that size is made or walked through.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from lmlab.data.optional import imported
from lmlab.errors import DataError
from lmlab.interop.families import Config
from lmlab.interop.places import Shape

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type."""
_AXES = 4

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""Transformers' names of a Llama's layers."""
SPLITS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [],
    "smollm": [{"type": "Digits", "individual_digits": True}],
}
"""What stands before byte-level BPE's own splitting of a text, by the names of llama.cpp."""
_CONTROL, _USER = 3, 4


class GGUF:
    """The model of a file; a context. Making one reads what stands before the numbers only.

    Attributes:
      config: what a `config.json` would say.
      shapes: of each tensor, by Transformers' names.

    Raises:
      ConfigError: the package `gguf` is missing.
      DataError: the file is damaged, lies about itself, or is of a model that lmlab does not have.
    """

    def __init__(self, path: Path) -> None:
        library = imported("gguf", "a GGUF file", "gguf")
        self._path = path
        try:
            _check(path, library.GGML_QUANT_SIZES)
            reader = library.GGUFReader(path)
        except (ValueError, KeyError, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise DataError(f"{path} is no GGUF file that can be read: {_first_line(error)}") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        self._fields, self._dequantize = reader.fields, library.dequantize
        self._tensors = {self._name(tensor.name): tensor for tensor in reader.tensors}
        self.shapes: dict[str, Shape] = {
            name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in self._tensors.items()
        }
        self.config = self._config()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors = {}

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, float32, as Transformers has it."""
        found = self._tensors[name]
        value = np.asarray(self._dequantize(found.data, found.tensor_type), np.float32).reshape(self.shapes[name])
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        return value if heads is None else _halves(value, self.config[heads])

    @property
    def roles(self) -> dict[str, str]:
        """What `hf.roles` are to say: the token that the file lets texts end with."""
        tokens, i = self._list("tokens", str), self._get("tokenizer.ggml.eos_token_id")
        return {"end_of_text": tokens[i]} if isinstance(i, int) and 0 <= i < len(tokens) else {}

    def write_tokenizer(self, folder: Path) -> Path | None:
        """Writes `tokenizer.json`, and `tokenizer_config.json` with the chat template; None where the file has neither.

        Raises:
          DataError: the tokenizer is of a kind that is not known, or damaged.
        """
        kind = self._get("tokenizer.ggml.model")
        if kind is None:
            return None
        split = self._get("tokenizer.ggml.pre", "gpt-2")
        if kind != "gpt2" or split not in SPLITS:
            what = kind if kind != "gpt2" else f"{kind} / {split}"
            raise DataError(
                f"{self._path}: its tokenizer is a '{what}'; lmlab knows gpt2 with {' or '.join(SPLITS)}. Put the "
                "model's tokenizer.json beside the file: it is read first."
            )
        tokens, kinds = self._list("tokens", str), self._list("token_type", int)
        merges = [merge.split(" ") for merge in self._list("merges", str)]
        vocab = {token: i for i, token in enumerate(tokens)}
        if len(vocab) != len(tokens) or len(kinds) != len(tokens) or any(len(merge) != 2 for merge in merges):
            raise DataError(f"{self._path}: tokens, their types and merges of its tokenizer do not fit each other.")
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(_tokenizer(vocab, kinds, merges, SPLITS[split])), encoding="utf-8")
        said: dict[str, Any] = {"chat_template": self._get("tokenizer.chat_template")}
        for name in ("bos", "eos", "unknown", "padding"):
            i = self._get(f"tokenizer.ggml.{name}_token_id")
            if isinstance(i, int) and 0 <= i < len(tokens):
                said[f"{ {'unknown': 'unk', 'padding': 'pad'}.get(name, name) }_token"] = tokens[i]
        (folder / "tokenizer_config.json").write_text(
            json.dumps({key: value for key, value in said.items() if value is not None}), encoding="utf-8"
        )
        return path

    def _name(self, name: str) -> str:
        """Transformers' name of a tensor; DataError for what a Llama does not have."""
        found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
        if found is None or found[2] not in NAMES:
            raise DataError(f"{self._path}: the tensor {name} has no place in a Llama of lmlab's.")
        layer = "" if found[1] is None else f"model.layers.{int(found[1])}."
        return f"{layer}{NAMES[found[2]]}.weight"

    def _config(self) -> Config:
        kind = self._get("general.architecture")
        if kind != "llama":
            raise DataError(f"{self._path}: a '{kind}'; of GGUF files lmlab reads those of 'llama'.")
        if self._get("llama.rope.scaling.type", "none") != "none":
            raise DataError(f"{self._path}: scaled rotary positions are what lmlab's model cannot do.")
        if self._get("llama.expert_count", 0):
            raise DataError(f"{self._path}: a mixture of experts, which is not read from GGUF.")
        heads = self._get("llama.attention.head_count")
        rows = self.shapes.get("model.embed_tokens.weight", (None,))[0]
        said = {
            "model_type": "llama",
            "hidden_size": self._get("llama.embedding_length"),
            "num_hidden_layers": self._get("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._get("llama.attention.head_count_kv", heads),
            "head_dim": self._get("llama.attention.key_length", self._get("llama.rope.dimension_count")),
            "intermediate_size": self._get("llama.feed_forward_length"),
            "max_position_embeddings": self._get("llama.context_length"),
            "rms_norm_eps": _short(self._get("llama.attention.layer_norm_rms_epsilon")),
            "rope_theta": _short(self._get("llama.rope.freq_base")),
            "vocab_size": rows,
            "tie_word_embeddings": "lm_head.weight" not in self.shapes,
        }
        return {key: value for key, value in said.items() if value is not None}

    def _get(self, key: str, default: Any = None) -> Any:
        found = self._fields.get(key)
        try:
            return default if found is None else found.contents()
        except (UnicodeDecodeError, IndexError) as error:
            raise DataError(f"{self._path}: {key} is damaged: {error}") from None

    def _list(self, name: str, kind: type) -> list[Any]:
        found = self._get(f"tokenizer.ggml.{name}", ())
        if not isinstance(found, Sequence) or not all(isinstance(one, kind) for one in found):
            raise DataError(f"{self._path}: tokenizer.ggml.{name} is no list of {kind.__name__}.")
        return list(found)


def _halves(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys (H K, D) of which rotary angles turn halves together; in the file, neighbours."""
    return value.reshape(heads, -1, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)


def _short(value: Any) -> Any:
    """The number that a float32 was made of: 1e-5, not 9.99e-6."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _tokenizer(
    vocab: Mapping[str, int], kinds: Sequence[int], merges: Sequence[Sequence[str]], split: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": token, "special": kinds[i] == _CONTROL, **plain}
        for token, i in vocab.items()
        if kinds[i] in (_CONTROL, _USER)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*split, level]},
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": dict(vocab), "merges": [list(merge) for merge in merges]},
    }  # fmt: skip


# --- Whether a file is as large as it says ----------------------------------------------------------------------


def _check(path: Path, sizes: Mapping[Any, tuple[int, int]]) -> None:
    """ValueError where counts, lengths or shapes are more than the file has bytes for."""
    blocks = {int(kind): size for kind, size in sizes.items()}
    with path.open("rb") as file:
        header = _Header(file, path.stat().st_size)
        if header.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := header.number("I")) not in VERSIONS:
            raise ValueError(f"it is of version {version}; versions {' and '.join(map(str, VERSIONS))} are known")
        tensors, values = header.count(8), header.count(8)
        for _ in range(values):
            header.text()
            header.value(header.number("I"))
        for _ in range(tensors):
            name = header.text()
            axes = header.number("I")
            if not 1 <= axes <= _AXES:
                raise ValueError(f"the tensor {name} has {axes} axes")
            count, kind = math.prod(header.number("Q") for _ in range(axes)), header.number("I")
            header.number("Q")
            if kind not in blocks:
                raise ValueError(f"the tensor {name} is of an unknown type, {kind}")
            per, size = blocks[kind]
            if count < 1 or count // per * size > header.size:
                raise ValueError(f"the tensor {name} says {count:,} numbers, more than there are in the file")


class _Header:
    """Reads a file from its beginning, never more than there is."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left, self.size = file, size, size

    def take(self, count: int) -> bytes:
        self._skip(count)
        return self._file.read(count)

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def count(self, least: int) -> int:
        """A number of things of at least so many bytes each."""
        found = self.number("Q")
        if found * least > self._left:
            raise ValueError(f"it says {found:,} entries, more than there is room for")
        return found

    def text(self) -> str:
        return self.take(self.count(1)).decode()

    def value(self, kind: int) -> None:
        """Passes over a value."""
        if kind == _STRING:
            self.take(self.count(1))
        elif kind == _ARRAY:
            inner = self.number("I")
            if inner == _STRING:
                for _ in range(self.count(8)):
                    self.take(self.count(1))
            else:
                size = self._size(inner)
                self.take(self.count(size) * size)
        else:
            self.take(self._size(kind))

    @staticmethod
    def _size(kind: int) -> int:
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of an unknown type, {kind}")
        return _SCALARS[kind]

    def _skip(self, count: int) -> None:
        if count > self._left:
            raise ValueError("it ends too early")
        self._left -= count


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
