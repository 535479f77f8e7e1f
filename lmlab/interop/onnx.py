"""A run's model as ONNX, which onnxruntime and others run: with any batch and any length.

jax2onnx converts the program of each function, traced with symbols for its sizes. What it is given is the traced
program itself, primitive by primitive: of the functions of jax.numpy it has stand-ins of its own, which do not take all
arguments. Parameters enter it as inputs and become initial values that all functions read from one file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.extend
import numpy as np
from jax import Array

from lmlab.data.optional import imported
from lmlab.errors import ConfigError
from lmlab.interop.inference import Function, Inference, named
from lmlab.interop.stablehlo import checksums, facts_of, write_tokenizer
from lmlab.interop.tensor_files import check_empty
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program

FORMAT, VERSION = "lmlab.onnx", 1
CONVERTER = (0, 17)
"""The first version that converts attention with a cache of any size."""
WEIGHTS = "weights.bin"
ALIGNED = 4096
"""Bytes that a tensor's place in the file is a multiple of, so that it can be mapped into memory."""


def export_onnx(program: Program, params: Mapping[str, Array], folder: Path) -> Inference:
    """Writes the functions of a run's model, its parameters, its tokenizer and a manifest.

    Inputs are named `ARGUMENT` or, of a cache, `ARGUMENT/PART`; outputs likewise, with `new_` before those of a name
    that is an input's, too.

    Args:
      program: of the run.
      params: path -> array.
      folder: to be made; it must be empty.

    Raises:
      ConfigError: the model cannot be exported, or not converted; a library is missing.
      RunFolderError: the folder is not empty, or cannot be written.
    """
    _check_converter()
    inference = Inference(program)
    check_empty(folder)
    name = program.experiment.model.name
    converted = {function.name: _converted(inference, function, name) for function in inference.functions}
    values = {path: np.asarray(value) for path, value in inference.parameters(params).items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        places = _write_weights(folder / WEIGHTS, values)
        for part, model in converted.items():
            _take_from_file(model, values, places)
            (folder / f"{part}.onnx").write_bytes(model.SerializeToString())
        told = {**write_tokenizer(program, folder), **facts_of(program, inference)}
    functions = {part: {"file": f"{part}.onnx", **_described(model)} for part, model in converted.items()}
    manifest = {
        "format": FORMAT, "version": VERSION, **told, "functions": functions, "sha256": checksums(folder),
    }  # fmt: skip
    replace_json(folder / "manifest.json", manifest)
    return inference


def _check_converter() -> None:
    """ConfigError unless the converter is there, which the extra cannot bring: it asks for an orbax older than ours."""
    imported("onnx", "export as ONNX", "onnx")
    try:
        version = tuple(int(part) for part in metadata.version("jax2onnx").split(".")[:2])
    except metadata.PackageNotFoundError:
        version = (0, 0)
    if version < CONVERTER:
        raise ConfigError(
            "export as ONNX needs jax2onnx, without the versions that it asks for: pip install 'lmlab[onnx]', and then "
            "pip install --no-deps 'jax2onnx>=0.17.1'"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the converter says of parts of it that are for other libraries, which are not there."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _converted(inference: Inference, function: Function, model: str) -> Any:
    """The function as an ONNX model, whose first inputs are the parameters."""
    import jax2onnx

    trees = (inference.shapes, *function.arguments.values())
    leaves, structure = jax.tree.flatten(trees)

    def flat(*given: Any) -> tuple[Array, ...]:
        results = function.call(*jax.tree.unflatten(structure, given))
        return tuple(jax.tree.leaves(results))

    inputs = [f"parameters/{path}" for path in inference.shapes] + _names(function.arguments)
    results = jax.eval_shape(function.call, *trees)
    results = results if len(function.results) > 1 else (results,)
    outputs = _names(dict(zip(function.results, results, strict=True)))
    program = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(flat)(*leaves))
    try:
        with _quiet():
            return jax2onnx.to_onnx(
                program, leaves, model_name=function.name, input_names=inputs,
                output_names=[f"new_{name}" if name in inputs else name for name in outputs],
            )  # fmt: skip
    except Exception as error:  # whatever a library says of an operation that it does not know
        said = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"jax2onnx does not convert '{function.name}' of the model '{model}' ({type(error).__name__}: {said}). "
            "Export it with --format stablehlo."
        ) from error


def _names(values: Mapping[str, Any]) -> list[str]:
    """Of all arrays: that of the value, or `VALUE/PART`, in the order of the leaves."""
    return [name for key, value in values.items() for name in named({key: value})]


def _write_weights(path: Path, values: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Writes all arrays to one file; where each begins, and its bytes."""
    places = {}
    with path.open("wb") as file:
        for name, value in values.items():
            file.write(b"\0" * (-file.tell() % ALIGNED))
            places[name] = file.tell(), value.nbytes
            file.write(np.ascontiguousarray(value).tobytes())
    return places


def _take_from_file(model: Any, values: Mapping[str, np.ndarray], places: Mapping[str, tuple[int, int]]) -> None:
    """Makes initial values, which stand in the file, of the model's inputs that are parameters."""
    import onnx

    for name, value in values.items():
        tensor = model.graph.initializer.add(name=f"parameters/{name}", dims=value.shape)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, said in zip(("location", "offset", "length"), (WEIGHTS, *places[name]), strict=True):
            tensor.external_data.add(key=key, value=str(said))
    kept = [given for given in model.graph.input if not given.name.startswith("parameters/")]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _described(model: Any) -> dict[str, Any]:
    """The names, shapes and types of what the model takes and gives."""
    return {"inputs": _shapes(model.graph.input), "outputs": _shapes(model.graph.output)}


def _shapes(values: Any) -> dict[str, Any]:
    import onnx

    found = {}
    for value in values:
        tensor = value.type.tensor_type
        sizes = [size.dim_param or size.dim_value for size in tensor.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        found[value.name] = {"shape": sizes, "dtype": str(kind)}
    return found
