"""Checkpoints in the layout of Hugging Face's Transformers as run folders, and run folders as such checkpoints."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from lmlab.config import resolve, spell_value
from lmlab.data.chat_template import write_chat_template
from lmlab.data.features.pairs import TARGET_START, target_start
from lmlab.data.tokenizers.hf import TokenizerFile
from lmlab.data.tokenizers.hugging_face import HuggingFace, library
from lmlab.errors import ConfigError, DataError, RunFolderError
from lmlab.interop.families import Config, Family, entry, family_for, family_of
from lmlab.interop.gguf_file import GGUF
from lmlab.interop.places import Places, Shape, read_parameter, shapes_of, write_parameter
from lmlab.interop.tensor_files import Tensors, check_empty, write_tensors
from lmlab.parallel.mesh import Mesh
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program
from lmlab.training.run_folder import RunFolder
from lmlab.training.starting import write_run

LONGEST = 1024
"""Tokens of a training row, unless the model has fewer positions or learned ones."""
OF_PAIRS = 512
"""Tokens of a source and of a target (T5: Raffel et al. 2020, section 3.1.2)."""
FROM_FILE = "tokenizer"
"""The folder of a run that has the tokenizer.json which was inside of a file."""
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""What early checkpoints call the parameters of normalisations."""


@dataclass(frozen=True)
class Imported:
    """What was made of a checkpoint.

    Attributes:
      run: the run folder.
      model: lmlab's name of the model.
      size: number of parameters.
      loaded: paths of the parameters that were read.
      new: paths of parameters that the checkpoint does not have, which are as an initialisation makes them.
      ignored: tensors that nothing is made of.
    """

    run: Path
    model: str
    size: int
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    ignored: tuple[str, ...]


def import_checkpoint(source: Path, run: Path, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Imported:
    """Makes a run folder, at step 0, of a checkpoint.

    Args:
      source: a folder with `config.json`, the safetensors and, if it is there, `tokenizer.json`; or a GGUF file.
      run: the run folder, which must not exist.
      overrides: gin statements that win over what the checkpoint says: the dataset to go on with, the loss.
      plugins: files or modules with components.

    Raises:
      DataError: the checkpoint is damaged, or of a kind that lmlab does not have.
      ConfigError: what is asked for does not fit.
      RunFolderError: there is something in `run`.
    """
    if RunFolder(run).exists():
        raise RunFolderError(f"{run} holds a run. Choose another folder with --run DIR.")
    if source.suffix != ".gguf":
        there = source / "tokenizer.json"
        return _import(_Checkpoint(
            source, read_config(source), there if there.exists() else None, lambda: Tensors(source)
        ), run, overrides, plugins)  # fmt: skip
    with GGUF(source) as file, tempfile.TemporaryDirectory() as made:
        beside = source.with_name("tokenizer.json")
        tokenizer = beside if beside.exists() else file.write_tokenizer(Path(made))
        kept = run.absolute() / FROM_FILE / "tokenizer.json" if tokenizer not in (beside, None) else None
        checkpoint = _Checkpoint(source, file.config, tokenizer, lambda: file, kept, file.roles)
        found = _import(checkpoint, run, overrides, plugins)
        if kept is not None:
            shutil.copytree(made, kept.parent)
    return found


@dataclass(frozen=True)
class _Checkpoint:
    """What a run is made of.

    Attributes:
      path: where it is, for messages.
      config: what `config.json` says.
      tokenizer: a tokenizer.json.
      tensors: opens what has `shapes` and `tensor`.
      kept: where the tokenizer.json will lie; None: where it is.
      roles: of tokens that are called otherwise than usual.
    """

    path: Path
    config: Config
    tokenizer: Path | None
    tensors: Callable[[], Tensors | GGUF]
    kept: Path | None = None
    roles: Mapping[str, str] = field(default_factory=dict)


def _import(checkpoint: _Checkpoint, run: Path, overrides: Sequence[str], plugins: Sequence[str]) -> Imported:
    """See `import_checkpoint`."""
    folder, config, tokenizer = checkpoint.path, checkpoint.config, checkpoint.tokenizer
    family = family_of(config)
    saved, ids, roles = None, entry(config, "vocab_size", int), {**checkpoint.roles, **_roles(checkpoint, family)}
    text = _experiment(family, config, checkpoint.kept or tokenizer)
    if tokenizer is not None:
        saved = TokenizerFile(str(tokenizer), roles or None, ids).fit(()).to_json()
        text += f"\nhf.roles = {spell_value(roles)}" if roles else ""
    resolved = resolve([], [text, *overrides], plugins)
    program = Program(resolved, saved_tokenizer=saved, partitioner=Mesh(data=1))
    if program.experiment.model.name != family.model:
        raise ConfigError(f"experiment.model = @{program.experiment.model.name}: {folder} is of a '{family.model}'.")
    places = family.places(program.experiment.model.kwargs)
    with checkpoint.tensors() as tensors:
        names, ignored = _names(family, places, tensors.shapes)
        missing = _absent(places, names)
        needed = [path for path in missing if not path.startswith(family.optional or ("\n",))]
        if needed:
            raise DataError(
                f"{folder} has no tensor {_first_of(places[needed[0]].names)}, which {needed[0]} is made of."
            )
        there = {path: place for path, place in places.items() if path not in missing}
        _check_shapes(folder, there, program, {name: tensors.shapes[own] for name, own in names.items()})
        found = {
            path: read_parameter(place, program.model.shapes[path].shape, lambda name: tensors.tensor(names[name]))
            for path, place in there.items()
        }
    write_run(RunFolder(run), resolved, program, found, "imported")
    new = tuple(path for path in program.model.shapes if path not in found)
    return Imported(run, family.model, program.model.size, tuple(found), new, tuple(ignored))


def _roles(checkpoint: _Checkpoint, family: Family) -> dict[str, str]:
    """What the tokenizer must know of a model of pairs: the token that its targets begin with.

    Raises:
      DataError: there is no tokenizer, or it has no such token.
    """
    if not family.pairs:
        return {}
    config, file = checkpoint.config, checkpoint.tokenizer
    if file is None:
        raise DataError(f"{checkpoint.path} has no tokenizer.json, which a '{family.model}' needs to read texts.")
    start = config.get("decoder_start_token_id", config.get("pad_token_id", 0))
    try:
        token = library().Tokenizer.from_file(str(file)).id_to_token(start)
    except Exception as error:  # the library knows no other type
        raise DataError(f"{file} cannot say which token {start!r} is (decoder_start_token_id): {error}") from None
    if token is None:
        raise DataError(f"{file} has no token {start}, which is config.json's decoder_start_token_id.")
    return {TARGET_START: token}


def read_config(folder: Path) -> Config:
    """`config.json` of a checkpoint; DataError where there is none, or it is no object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Name the folder of a checkpoint.") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not isinstance(config, Mapping):
        raise DataError(f"{path} holds no object.")
    return config


def _experiment(family: Family, config: Config, tokenizer: Path | None) -> str:
    """gin text of an experiment with the checkpoint's model, on data that are there or can be fetched."""
    length = LONGEST if family.length is None else entry(config, family.length, int)
    values = family.values(config)
    bindings: dict[str, Any] = {
        "experiment.seq_len": OF_PAIRS if family.pairs else length if family.learned else min(length, LONGEST),
        "experiment.steps": 1000,
        "experiment.global_batch_size": 8,
        "adamw.learning_rate": 5e-5,
        **{f"{family.model}.{name}": value for name, value in values.items()},
    }
    if family.pairs:
        bindings["experiment.source_len"] = OF_PAIRS
    if tokenizer is None:
        data = {"dataset": "random_tokens"}
        bindings["random_tokens.vocab"] = entry(config, "vocab_size", int)
        if family.loss == "mlm":
            bindings["random_tokens.specials"] = ("mask",)
    else:
        data = {"dataset": "scan" if family.pairs else "state_of_the_union", "tokenizer": "hf"}
        bindings["hf.path"] = str(tokenizer.resolve())
        bindings["hf.ids"] = entry(config, "vocab_size", int)
    named = {"model": family.model, "loss": family.loss, "optimizer": "adamw", **data}
    lines = [f"experiment.{part} = @{name}" for part, name in named.items()]
    return "\n".join([*lines, *(f"{key} = {spell_value(value)}" for key, value in bindings.items())])


def _names(family: Family, places: Places, shapes: Mapping[str, Shape]) -> tuple[dict[str, str], list[str]]:
    """The name in the file by the name in the places, and what is left out.

    Raises:
      DataError: a tensor has no place in the model, whose function would be another one without it.
    """
    wanted = {_pattern(name) for place in places.values() for name in place.names}
    found, ignored = {}, []
    for own in shapes:
        name = own.removeprefix(family.base)
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
        if any(re.fullmatch(pattern, name) for pattern in wanted):
            found[name] = own
        elif any(re.fullmatch(pattern, name) for pattern in family.copies) or name.startswith(family.head):
            ignored.append(own)
        else:
            raise DataError(f"the tensor {own} has no place in the model '{family.model}'.")
    return found, ignored


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\{\}", r"\d+")


def _first_of(names: Sequence[str]) -> str:
    return names[0].replace("{}", "0")


def _absent(places: Places, names: Mapping[str, str]) -> list[str]:
    """Paths of the parameters of which no tensor is there."""
    return [path for path, place in places.items() if not any(_first_of([name]) in names for name in place.names)]


def _check_shapes(folder: Path, places: Places, program: Program, shapes: Mapping[str, Shape]) -> None:
    wanted = shapes_of(places, program.model.shapes)
    for name, shape in wanted.items():
        if name not in shapes:
            raise DataError(f"{folder} has no tensor {name}.")
        if shapes[name] != shape:
            raise DataError(f"{folder}: the tensor {name} is {shapes[name]}, and by config.json it must be {shape}.")
    more = sorted(shapes.keys() - wanted.keys())
    if more:
        raise DataError(f"{folder}: by config.json there is no tensor {more[0]}: the model has fewer blocks.")


# --- The other way --------------------------------------------------------------------------------------------


def export_checkpoint(program: Program, params: Mapping[str, Array], folder: Path) -> Family:
    """Writes a run's model as Transformers reads it: `config.json`, safetensors and, if there is one, `tokenizer.json`
    with its chat template.

    Args:
      program: of the run.
      params: path -> array.
      folder: to be made; it must be empty.

    Raises:
      ConfigError: Transformers has no such model, or the loss has parameters of its own.
      RunFolderError: the folder is not empty, or cannot be written.
    """
    values = program.experiment.model.kwargs
    family = family_for(program.experiment.model.name, values)
    config = family.config(values)
    places, params = family.places(values), program.model.merged(params)
    if places.keys() != params.keys():
        others = sorted(params.keys() ^ places.keys())
        raise ConfigError(f"the run's model has parameters that {family.architecture} does not have: {others[0]}.")
    check_empty(folder)
    tensors = {}
    for path, place in places.items():
        for name, tensor in write_parameter(place, np.asarray(jax.device_get(params[path]))).items():
            tensors[name if name.startswith(family.head or ("\n",)) else f"{family.base}{name}"] = tensor
    tokenizer = program.tokenizer
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder, tensors)
        if isinstance(tokenizer, HuggingFace):
            (folder / "tokenizer.json").write_bytes(tokenizer.export())
        template = getattr(tokenizer, "chat_template", None)
        if template is not None:
            write_chat_template(folder, template)
    ends = {} if tokenizer is None else {"eos_token_id": tokenizer.end_of_text, "bos_token_id": tokenizer.end_of_text}
    if family.pairs and tokenizer is not None:  # Transformers fills up what has ended with the padding's id
        ends |= dict.fromkeys(("decoder_start_token_id", "pad_token_id"), target_start(tokenizer))
    longest = {} if family.length is None else {family.length: program.experiment.seq_len}
    kind = {"model_type": family.model_type, "architectures": [family.architecture], "torch_dtype": "float32"}
    replace_json(folder / "config.json", {**kind, "vocab_size": program.data.vocab, **longest, **ends, **config})
    return family
