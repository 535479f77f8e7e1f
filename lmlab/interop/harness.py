"""Tasks of EleutherAI's lm-evaluation-harness on a run's model (the extra `lm-eval`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from lmlab.data.optional import imported
from lmlab.errors import ConfigError, DataError, LmlabError
from lmlab.registry import near_names

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.training.program import Program

EXTRA = "lm-eval"
BOOTSTRAPS = 1000
"""Of the standard errors that have no formula, such as a perplexity's."""


@dataclass(frozen=True)
class HarnessTasks:
    """Which tasks, and how much of them.

    Args:
      names: of tasks, groups or tags of the harness, or of the folders of `include`.
      include: a folder with task files (YAML) of the user's.
      fewshot: examples before each question; None: as the task says.
      limit: only so many first documents of each task; None: all of them.
    """

    names: tuple[str, ...]
    include: str | None = None
    fewshot: int | None = None
    limit: int | None = None

    @property
    def version(self) -> str:
        """Of lm-eval: its tasks change."""
        return metadata.version("lm_eval")

    def check(self) -> None:
        """Finds the tasks and reads their data: for those who would rather know before a large model is read.

        Raises:
          ConfigError: lm-eval is not installed, or there is no such task.
          DataError: a task's file or data cannot be read.
        """
        manager = task_manager(self.include)
        for name in self.names:
            if name not in manager.all_tasks:
                where = f" (tasks of the harness and of {self.include})" if self.include else ""
                raise ConfigError(
                    f"--harness: there is no task '{name}'{where}.{near_names(name, manager.all_tasks)} "
                    "Task files of your own: --include DIR."
                )
        try:
            manager.load(list(self.names))
        except LmlabError:
            raise
        except Exception as error:  # a task is a file of the user's and a loader of data: what it raises is no bug here
            said = str(error).strip().split("\n")[0]
            raise DataError(
                f"--harness {','.join(self.names)}: the harness cannot load it: {type(error).__name__}: {said}"
            ) from error

    def measure(self, program: Program, params: Mapping[str, Array]) -> dict[str, dict[str, float]]:
        """The numbers of each task, by the harness's own names, with their standard errors.

        Raises:
          ConfigError, DataError: as in `check`, or the model cannot serve a task.
        """
        harness = imported("lm_eval", "--harness", EXTRA)
        from lmlab.interop.harness_model import HarnessModel

        found = harness.simple_evaluate(
            model=HarnessModel(program, params), tasks=list(self.names), num_fewshot=self.fewshot, limit=self.limit,
            task_manager=task_manager(self.include), bootstrap_iters=BOOTSTRAPS, log_samples=False,
        )  # fmt: skip
        return {task: numbers_of(values) for task, values in found["results"].items()}


@functools.cache
def task_manager(include: str | None) -> Any:
    """The harness's, which knows its own tasks and those in a folder; kept, for it reads some thousand files."""
    return imported("lm_eval.tasks", "--harness", EXTRA).TaskManager(include_path=include)


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among what the harness says of a task, without the name of the filter where it is the usual one."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("alias", "sample_len")
    }


def split_names(text: Sequence[str]) -> tuple[str, ...]:
    """`a,b` and `c` as names; ConfigError where there is none."""
    names = tuple(name.strip() for part in text for name in part.split(",") if name.strip())
    if not names:
        raise ConfigError("--harness: name a task, as lm-eval calls it: --harness lambada_openai,piqa")
    return names
