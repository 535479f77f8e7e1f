"""A run with an adapter as a run without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from jax import Array

from lmlab.config import Resolved
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError, RunFolderError
from lmlab.training.program import Program
from lmlab.training.run_folder import RunFolder
from lmlab.training.starting import write_run


def merge(program: Program, params: Callable[[], Mapping[str, Array]], folder: Path) -> Program:
    """Makes a run folder, at step 0, of the model alone; returns its program.

    Args:
      program: of the run with the adapter.
      params: gives its parameters, adapter included.
      folder: must not exist.

    Raises:
      ConfigError: the run has no adapter.
      RunFolderError: there is something in `folder`.
    """
    if program.experiment.adapter is None:
        raise ConfigError("the run has no adapter: there is nothing to merge. Use it as it is.")
    files = RunFolder(folder)
    if files.exists():
        raise RunFolderError(f"{folder} holds a run. Choose another folder with --run DIR.")
    resolved = without_adapter(program.resolved)
    saved = None if program.tokenizer is None else program.tokenizer.to_json()
    alone = Program(resolved, saved_tokenizer=saved, partitioner=program.partitioner)
    write_run(files, resolved, alone, program.model.merged(params()), "merged")
    return alone


def without_adapter(resolved: Resolved) -> Resolved:
    """The configuration without its adapter, and without the run that its parameters began from."""
    gone = ("adapter", "init_from")
    spec = resolved.spec
    alone = Spec(spec.kind, spec.name, FrozenDict({**spec.kwargs, **dict.fromkeys(gone)}))
    kept = {path: place for path, place in resolved.provenance.items() if path.split(".")[0] not in gone}
    return replace(resolved, spec=alone, provenance=FrozenDict(kept | dict.fromkeys(gone, "lmlab merge")))
