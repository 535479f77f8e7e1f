"""The adapter of a run as the library PEFT reads it: small files beside a checkpoint of Transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from lmlab.contracts import Spec
from lmlab.errors import ConfigError, RunFolderError
from lmlab.interop.families import Family, family_for
from lmlab.interop.places import LAYER, Place
from lmlab.interop.tensor_files import library
from lmlab.nn.adapters import ADAPTER, Adapted, Product, products
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before the names of modules."""


class Factors(NamedTuple):
    """The two factors beside one module, as PEFT has them.

    Attributes:
      module: its name.
      a: (rank, in).
      b: (out, rank).
    """

    module: str
    a: np.ndarray
    b: np.ndarray


def export_adapter(program: Program, params: Mapping[str, Array], folder: Path) -> list[str]:
    """Writes a run's adapter as `PeftModel.from_pretrained(base, folder)` reads it; gives the names of the modules.

    Args:
      program: of the run.
      params: path -> array.
      folder: to be made; it must be empty.

    Raises:
      ConfigError: the run has no such adapter, more than it has learned, or Transformers has no such model.
      RunFolderError: the folder is not empty, or cannot be written.
    """
    spec = program.experiment.adapter
    if spec is None or spec.name != "lora" or not isinstance(program.model, Adapted):
        raise ConfigError("the run has no adapter of the kind that PEFT has (lora). lmlab export writes its model.")
    others = [path for path in program.model.shapes if path not in program.frozen and not path.startswith(ADAPTER)]
    if others:
        raise ConfigError(
            f"the run has also learned {others[0]}, which is no part of an adapter. Write the merged model: lmlab "
            "export without --adapter."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there and not empty. Choose another folder.")
    family = family_for(program.experiment.model.name, program.experiment.model.kwargs)
    values = {path: np.asarray(value) for path, value in jax.device_get(dict(params)).items()}
    found = list(_factors(program, family, values))
    _write(folder, found, _config(spec, family, found))
    return [factors.module for factors in found]


def _factors(program: Program, family: Family, params: Mapping[str, np.ndarray]) -> Iterator[Factors]:
    """The factors beside every module that has some, block by block."""
    model: Any = program.model
    places = family.places(program.experiment.model.kwargs)
    by_path: dict[str, list[Product]] = {}
    for product in products(model.plain):
        if product.factor("a") in params:
            by_path.setdefault(product.path, []).append(product)
    for path, own in by_path.items():
        place, columns = places[path], model.columns.get(path)
        several = own[0].part is not None and len(place.names) == 1
        for layer in range(model.shapes[path].shape[0]) if place.layered else (None,):
            pairs = [_of_layer(product, params, layer) for product in own]
            if several:
                pairs = [_together(own, pairs, len(columns.names))]
            for product, (a, b) in zip(own, pairs, strict=False):
                name = _module(family, place, 0 if several else product.part or 0, layer)
                yield Factors(name, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))


def _of_layer(product: Product, params: Mapping[str, np.ndarray], layer: int | None) -> tuple[np.ndarray, np.ndarray]:
    a, b = (params[product.factor(which)] for which in "ab")
    return (a, b) if layer is None else (a[layer], b[layer])


def _together(
    own: list[Product], pairs: list[tuple[np.ndarray, np.ndarray]], parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of products that are one module there, [q | k | v]: side by side, each with columns of its own."""
    rank, width = pairs[0][1].shape
    b = np.zeros((len(own) * rank, parts * width), np.float32)
    for number, (product, (_, columns)) in enumerate(zip(own, pairs, strict=True)):
        assert product.part is not None
        b[number * rank : (number + 1) * rank, product.part * width : (product.part + 1) * width] = columns
    return np.concatenate([a for a, _ in pairs], axis=1), b


def _module(family: Family, place: Place, part: int, layer: int | None) -> str:
    name = place.names[part].replace(LAYER, str(layer))
    return (name if name.startswith(family.head or ("\n",)) else f"{family.base}{name}").removesuffix(".weight")


def _config(spec: Spec, family: Family, found: list[Factors]) -> dict[str, Any]:
    rank, alpha = spec.kwargs["rank"], spec.kwargs["alpha"]
    wider = {factors.module: len(factors.a) for factors in found if len(factors.a) != rank}
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM" if "CausalLM" in family.architecture else None,
        "base_model_name_or_path": None, "inference_mode": True, "bias": "none", "lora_dropout": 0.0,
        "fan_in_fan_out": family.model_type == "gpt2", "r": rank, "lora_alpha": alpha,
        "target_modules": [factors.module for factors in found], "rank_pattern": wider,
        "alpha_pattern": {module: alpha * own / rank for module, own in wider.items()},
    }  # fmt: skip


def _write(folder: Path, found: list[Factors], config: Mapping[str, Any]) -> None:
    library()
    from safetensors.numpy import save_file

    tensors = {f"{PREFIX}{one.module}.lora_A.weight": one.a for one in found}
    tensors |= {f"{PREFIX}{one.module}.lora_B.weight": one.b for one in found}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    replace_json(folder / CONFIG, dict(config))
