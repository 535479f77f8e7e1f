"""The tensors of a checkpoint folder: one `model.safetensors`, or several with an index; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from lmlab.errors import ConfigError, DataError, RunFolderError
from lmlab.interop.places import Shape

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
SHARD = 5 * 10**9
"""The most bytes of a file that is written, as Transformers has it."""


def library() -> Any:
    """The `safetensors` package; ConfigError where it is missing."""
    try:
        import safetensors
    except ImportError:
        raise ConfigError("checkpoints of Transformers need safetensors: pip install 'lmlab[hf]'") from None
    return safetensors


class Tensors:
    """The tensors of a folder by their names; a context. Making one reads the files' headers only.

    Attributes:
      shapes: of each tensor.

    Raises:
      DataError: there is no such file, or one is damaged, lies about its tensors, or is a pickle.
    """

    def __init__(self, folder: Path) -> None:
        library()
        self._folder, self._open = folder, ExitStack()
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, Shape] = {}
        try:
            for path in self._paths():
                self._add(path)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, as it is in its file but float32 where that is a type that NumPy lacks."""
        found = self._files[name].get_tensor(name)
        return found.astype(np.float32) if found.dtype.name == "bfloat16" else np.asarray(found)

    def _paths(self) -> list[Path]:
        whole, index = self._folder / WHOLE, self._folder / INDEX
        if whole.exists():
            return [whole]
        if index.exists():
            return [self._folder / name for name in sorted(set(self._index(index).values()))]
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in self._folder.glob(pattern))
        if pickles:
            raise DataError(
                f"{self._folder / pickles[0]} is a pickle, which can run any program when it is read; lmlab reads "
                "safetensors only. Convert it where you trust it: transformers' AutoModel.from_pretrained(FOLDER)"
                ".save_pretrained(FOLDER) writes them."
            )
        raise DataError(f"{self._folder} has no {WHOLE} and no {INDEX}.")

    def _index(self, path: Path) -> Mapping[str, str]:
        try:
            files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
            fits = bool(files) and all(Path(name).name == name for name in files.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise DataError(f"{path} is no index: it must have weight_map, the file in this folder of every tensor.")
        return dict(files)

    def _add(self, path: Path) -> None:
        try:
            file = self._open.enter_context(library().safe_open(path, framework="numpy"))
        except (OSError, library().SafetensorError) as error:
            raise DataError(f"{path} cannot be read as safetensors: {error}") from None
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            tensor = file.get_slice(name)
            if name in self._files:
                raise DataError(f"{path}: the tensor {name} is in another file of the index, too.")
            if tensor.get_dtype() in FLOATS:  # others are masks and positions, which nothing reads
                self._files[name], self.shapes[name] = file, tuple(tensor.get_shape())


def check_empty(folder: Path) -> None:
    """RunFolderError unless an export may write there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there and not empty. Choose another folder.")


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file, or several of at most `SHARD` bytes (or of one tensor) with an index; arrays are contiguous."""
    library()
    from safetensors.numpy import save_file

    shards: list[dict[str, np.ndarray]] = [{}]
    room = SHARD
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WHOLE, metadata={"format": "pt"})
        return
    files: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        files |= dict.fromkeys(shard, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / INDEX).write_text(f"{json.dumps(index, indent=2)}\n", encoding="utf-8")
