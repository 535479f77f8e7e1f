"""Tasks of EleutherAI's lm-evaluation-harness on a run's model (the extra `lm-eval`)."""

from __future__ import annotations

import functools
import hashlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
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

    @property
    def short_name(self) -> str:
        """The names of the tasks, as the part of a file's name; of many, the first ones and a digest."""
        joined = "-".join(name.replace("/", "_") for name in self.names)
        return joined if len(joined) <= 100 else f"{joined[:90]}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"

    def check(self) -> None:
        """Finds the tasks and reads their data: for those who would rather know before a large model is read.

        Raises:
          ConfigError: lm-eval is not installed, or there is no such task or folder.
          DataError: a task's file or data cannot be read.
        """
        if self.include is not None and not Path(self.include).is_dir():
            raise ConfigError(f"--include {self.include}: there is no such folder.")
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
            raise self._failed("load", error) from error

    def measure(self, program: Program, params: Mapping[str, Array]) -> dict[str, dict[str, float]]:
        """The numbers of each task, by the harness's own names, with their standard errors.

        Raises:
          ConfigError, DataError: as in `check`, or the model cannot serve a task, or the harness cannot make or score
            its questions (fewer examples than `fewshot` asks for; a document without a choice).
        """
        harness = imported("lm_eval", "--harness", EXTRA)
        from lmlab.interop import harness_model

        model = harness_model.HarnessModel(program, params)
        try:
            found = harness.simple_evaluate(
                model=model, tasks=list(self.names), num_fewshot=self.fewshot, limit=self.limit,
                task_manager=task_manager(self.include), bootstrap_iters=BOOTSTRAPS, log_samples=False,
            )  # fmt: skip
        except LmlabError:
            raise
        except Exception as error:
            if _passed(error, harness_model.__file__):  # not the task's mistake but ours
                raise
            raise self._failed("use", error) from error
        return {task: numbers_of(values) for task, values in found["results"].items()}

    def _failed(self, what: str, error: Exception) -> DataError:
        said = str(error).strip().split("\n")[0]
        return DataError(
            f"--harness {','.join(self.names)}: the harness cannot {what} it: {type(error).__name__}: {said}"
        )


def _passed(error: Exception, file: str) -> bool:
    """Whether the error was raised in a file, or in what that called."""
    return any(frame.filename == file for frame in traceback.extract_tb(error.__traceback__))


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
    """`a,b` and `c` as names, each once; ConfigError where there is none."""
    names = tuple(dict.fromkeys(name.strip() for part in text for name in part.split(",") if name.strip()))
    if not names:
        raise ConfigError("--harness: name a task, as lm-eval calls it: --harness lambada_openai,piqa")
    return names
