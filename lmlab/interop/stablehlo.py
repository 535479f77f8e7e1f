"""A run's model as StableHLO, which jax alone runs: on CPU, GPU and TPU, with any batch and any length."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from lmlab.data.optional import imported
from lmlab.data.tokenizers.hugging_face import HuggingFace
from lmlab.interop import run_exported
from lmlab.interop.inference import Function, Inference
from lmlab.interop.tensor_files import check_empty, write_tensors
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program

FORMAT, VERSION = "lmlab.stablehlo", 1
PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(program: Program, params: Mapping[str, Array], folder: Path, *, baked: bool = False) -> Inference:
    """Writes the functions of a run's model, its parameters, its tokenizer, a manifest, and a program that uses them.

    Args:
      program: of the run.
      params: path -> array.
      folder: to be made; it must be empty.
      baked: the parameters stand inside of each function, and not in a file beside them.

    Raises:
      ConfigError: the model cannot be exported; a library is missing.
      RunFolderError: the folder is not empty, or cannot be written.
    """
    imported("flatbuffers", "export as StableHLO", "export")  # which jax.export writes with
    inference = Inference(program)
    check_empty(folder)
    values = {name: np.asarray(value) for name, value in inference.parameters(params).items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        functions = {}
        for function in inference.functions:
            written = _exported(inference, function, values if baked else None)
            (folder / f"{function.name}.stablehlo").write_bytes(written.serialize())
            functions[function.name] = _described(function, written)
        if not baked:
            write_tensors(folder, values)
        told = {**write_tokenizer(program, folder), **facts_of(program, inference)}
        (folder / "run.py").write_bytes(Path(run_exported.__file__).read_bytes())
    files = sorted(path.name for path in folder.glob("model*.safetensors"))
    manifest = {
        "format": FORMAT, "version": VERSION, "jax": jax.__version__, "platforms": list(PLATFORMS), **told,
        "parameters": {"files": files, "arrays": {} if baked else _shapes(values)},
        "functions": functions, "sha256": checksums(folder),
    }  # fmt: skip
    replace_json(folder / "manifest.json", manifest)
    return inference


def write_tokenizer(program: Program, folder: Path) -> dict[str, Any]:
    """Writes the run's tokenizer, as `tokenizer.json` where that is a format that others read, and says what it is."""
    tokenizer, spec = program.tokenizer, program.experiment.tokenizer
    if tokenizer is None or spec is None:
        return {"tokenizer": None, "end_of_text": None}
    said = {"kind": spec.name, "file": "tokenizer.json" if isinstance(tokenizer, HuggingFace) else "vocabulary.json"}
    if isinstance(tokenizer, HuggingFace):
        (folder / said["file"]).write_bytes(tokenizer.export())
    else:
        replace_json(folder / said["file"], dict(tokenizer.to_json()))
    return {"tokenizer": said, "end_of_text": tokenizer.end_of_text}


def facts_of(program: Program, inference: Inference) -> dict[str, Any]:
    """What a manifest says of the model."""
    return {
        "model": program.experiment.model.name, "identity": program.resolved.identity, "vocab": program.data.vocab,
        "special_ids": dict(program.data.special_ids), "longest": inference.longest,
        "left_out": list(inference.left_out),
    }  # fmt: skip


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _exported(inference: Inference, function: Function, values: Mapping[str, np.ndarray] | None) -> export.Exported:
    """The function, of parameters and its arguments; of no parameters where their values are given."""
    call, shapes = function.call, inference.shapes
    if values is not None:
        call, shapes = _with(call, values), {}
    return export.export(jax.jit(call), platforms=PLATFORMS)(shapes, *function.arguments.values())


def _with(call: Any, values: Mapping[str, np.ndarray]) -> Any:
    def inside(_: Mapping[str, Any], *arguments: Any) -> Any:
        return call({name: jnp.asarray(value) for name, value in values.items()}, *arguments)

    return inside


def _described(function: Function, written: export.Exported) -> dict[str, Any]:
    """The file, and the names, shapes and dtypes of what the function takes and gives."""
    results = jax.tree.unflatten(written.out_tree, written.out_avals)
    results = results if len(function.results) > 1 else (results,)
    return {
        "file": f"{function.name}.stablehlo",
        "arguments": {name: _shapes(value) for name, value in function.arguments.items()},
        "results": {name: _shapes(value) for name, value in zip(function.results, results, strict=True)},
    }


def _shapes(value: Any) -> Any:
    """Sizes and type of an array, or of each of a dict."""
    if isinstance(value, Mapping):
        return {name: _shapes(one) for name, one in value.items()}
    return {"shape": [size if isinstance(size, int) else str(size) for size in value.shape], "dtype": str(value.dtype)}
