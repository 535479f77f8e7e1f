"""The laws that a component must keep, as checks that any test runner can call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

from lmlab import registry
from lmlab.errors import ConfigError, NotFetched
from lmlab.registry import CATALOGUE, REGISTRIES, Entry
from lmlab.testing import (
    every_component,
    of_adapters,
    of_data,
    of_losses,
    of_models,
    of_optim,
    of_runs,
    of_samplers,
    of_transforms,
)
from lmlab.testing.tiny import Tiny

Law = Callable[[Tiny], None]

LAWS: dict[str, tuple[Law, ...]] = {
    "model": (*of_models.LAWS, *of_runs.STEP_LAWS, *of_runs.RUN_LAWS),
    "loss": (*of_losses.LAWS, *of_runs.STEP_LAWS, *of_runs.RUN_LAWS),
    "dataset": (*of_data.DATASET_LAWS, *of_runs.RUN_LAWS),
    "tokenizer": (*of_data.TOKENIZER_LAWS, *of_runs.RUN_LAWS),
    "optimizer": (*of_optim.OPTIMIZER_LAWS, *of_runs.RUN_LAWS),
    "schedule": (*of_optim.SCHEDULE_LAWS, *of_runs.RUN_LAWS),
    "partitioner": of_runs.PARTITIONER_LAWS,
    "evaluator": of_runs.EVALUATOR_LAWS,
    "hook": of_runs.RUN_LAWS,
    "writer": of_runs.RUN_LAWS,
    "sampler": of_samplers.LAWS,
    "transform": of_transforms.LAWS,
    "adapter": (*of_adapters.LAWS, *of_runs.STEP_LAWS, *of_runs.RUN_LAWS),
}
"""What is checked of a component of each kind, beside what is checked of every component."""


@dataclass(frozen=True)
class Check:
    """One law, to be checked of one component. Calling it raises AssertionError where the law is broken.

    Where the law says nothing about the component it raises `unittest.SkipTest`, which test runners know; so it does,
    with the command that brings it, where a corpus is not on this machine.
    """

    entry: Entry
    law: Law

    def __call__(self, folder: Path | None = None) -> None:
        """Checks the law; `folder` is an empty one to write to (None: a temporary one)."""
        if folder is None:
            with tempfile.TemporaryDirectory() as temporary:
                self(Path(temporary))
            return
        try:
            self.law(Tiny(self.entry, folder))
        except NotFetched as missing:
            raise SkipTest(str(missing)) from None
        except ConfigError as error:
            if isinstance(error.__context__, ModuleNotFoundError):
                raise SkipTest(str(error)) from None  # an optional dependency
            raise

    def __str__(self) -> str:
        return f"{self.entry.name}-{self.law.__name__}"


def checks(kind: str, name: str) -> list[Check]:
    """What is to be checked of one component, for `pytest.mark.parametrize("check", checks("model", "gpt"), ids=str)`.

    Raises:
      ConfigError: there is no such component.
    """
    entry = REGISTRIES[kind].entry(name)
    return [Check(entry, law) for law in (*every_component.LAWS, *LAWS.get(kind, ()))]


def checks_of_plugin(plugin: str) -> Iterator[Check]:
    """What is to be checked of the components of a plug-in, `path/to/file.py` or `dotted.module`; loads it."""
    module = registry.load_plugin(plugin).__name__
    for entry in list(CATALOGUE.entries().values()):
        if entry.module == module or entry.module.startswith(f"{module}."):
            yield from checks(entry.kind, entry.name)


def add_to(namespace: MutableMapping[str, Any], plugin: str) -> None:
    """Puts a test function into a test module for every component of a plug-in and every law.

    Each is called `test_<component>_<law>` and takes pytest's `tmp_path`.
    """
    for check in checks_of_plugin(plugin):
        test = _as_test(check)
        namespace[test.__name__] = test


def _as_test(check: Check) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        check(tmp_path)

    test.__name__ = f"test_{check.entry.name}_{check.law.__name__}"
    test.__doc__ = check.law.__doc__
    return test
