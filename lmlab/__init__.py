"""A JAX/Flax laboratory for language models: a model, a loss and a dataset are three names in a gin file.

    import lmlab
    run = lmlab.train("experiments/quickstart.gin", overrides={"gpt.layers": 6})

Importing lmlab imports neither jax nor flax; what is used is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmlab.config import Resolved as Resolved
    from lmlab.config import build as build
    from lmlab.config import resolve as resolve
    from lmlab.contracts import Spec as Spec
    from lmlab.errors import LmlabError as LmlabError
    from lmlab.training.run import Run

__all__ = ["LmlabError", "Resolved", "Spec", "build", "resolve", "train"]

_HOMES = {
    "LmlabError": "lmlab.errors",
    "Resolved": "lmlab.config",
    "Spec": "lmlab.contracts",
    "build": "lmlab.config",
    "resolve": "lmlab.config",
}


def train(
    config: str | Path | Sequence[str | Path] | Resolved,
    *,
    overrides: Sequence[str] | Mapping[str, Any] | str = (),
    plugins: Sequence[str] = (),
    run: str | Path | None = None,
) -> Run:
    """Trains what a configuration describes and returns the run; goes on with a run that was left unfinished.

    Args:
      config: gin files, or a configuration that is resolved already (without overrides and plugins).
      overrides: gin statements that win over the files (`"gpt.layers = 6"` or `{"gpt.layers": 6}`).
      plugins: `path/to/file.py` or `dotted.module` of each plug-in.
      run: the run folder (None: `runs/` and the name of the first gin file).

    Raises:
      LmlabError: one of its kinds, with a message for people (see lmlab.errors).
    """
    from lmlab.config import Resolved, resolve
    from lmlab.errors import ConfigError
    from lmlab.training import loop

    if isinstance(config, Resolved):
        if overrides or plugins:
            raise ConfigError(
                "overrides and plugins cannot be added to a resolved configuration. Resolve it with them."
            )
        return loop.train(config, run)
    return loop.train(resolve(config, overrides, plugins), run)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # slower to import than the rest of this

        try:
            return metadata.version("lmlab")
        except metadata.PackageNotFoundError:
            return "not installed"
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lmlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
