"""How a claim's number is got: a record of its run, a judge of its runs, or a check that needs no training.

Judges and checks are functions in the paper's own folder, `excess` of checks.py or `oracle:excess` of oracle.py:

    def excess(runs: Mapping[str, RunAt]) -> float:      # the runs of one seed, by their names in claims.toml
    def counts() -> Mapping[str, float]:                 # several numbers, of which each claim names one

A judge that cannot say yet raises `NotMeasured` with the reason, and so does a check that lacks a package.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab import registry
from lmlab.errors import ConfigError, LmlabError
from lmlab.papers.claims import Claim, Paper
from lmlab.sweeps.records import Curve, Record, curve

if TYPE_CHECKING:
    from lmlab.training.run import Run


class NotMeasured(LmlabError):
    """There is no number, and why."""


@dataclass(frozen=True)
class RunAt:
    """A run as a judge sees it, at its end or at a step on the way there.

    Attributes:
      folder: its run folder.
      step: where it is looked at; `steps` is its whole length.
      records: what it had recorded by then.
    """

    folder: Path
    step: int
    steps: int
    records: tuple[Record, ...]

    def last(self, metric: str) -> float:
        """A number of the evaluation at this step, or `train/NAME` of the last training record.

        Raises:
          NotMeasured: it was not recorded.
        """
        steps, values = self.curve(metric)
        if not steps or (steps[-1] != self.step and not metric.startswith("train/")):
            there = dict.fromkeys(name for record in self.records if record["step"] == self.step for name in record)
            near = registry.near_names(metric, list(there))
            raise NotMeasured(f"{self.folder} has recorded no '{metric}' at step {self.step}.{near}")
        return values[-1]

    def curve(self, metric: str) -> Curve:
        """A metric over the steps at which it was recorded."""
        return curve(self.records, metric)

    def first_step(self, metric: str, least: float) -> int | None:
        """The first step at which a metric was recorded to be so much; None where it never was."""
        return next((step for step, value in zip(*self.curve(metric), strict=True) if value >= least), None)

    @cached_property
    def run(self) -> Run:
        """The run itself, for what no record has (its newest state: look at it at the end only)."""
        from lmlab.training.run import Run

        return Run(self.folder)


def function_of(paper: Paper, name: str) -> Callable[..., Any]:
    """A judge or check of a paper.

    Raises:
      ConfigError: there is no such file or function.
    """
    module, _, function = name.rpartition(":")
    file = paper.folder / f"{module or 'checks'}.py"
    where = f"{paper.folder / 'claims.toml'}: '{name}'"
    if not file.is_file():
        raise ConfigError(f"{where} is looked for in {file}, which is not there.")
    registry.scan_installed_plugins()  # so that it finds their datasets
    loaded = registry.load_plugin(str(file))
    found: Any = getattr(loaded, function, None)
    if not _is_function(found):
        known = [key for key, value in vars(loaded).items() if _is_function(value) and key[0] != "_"]
        raise ConfigError(f"{where}: {file} has no function '{function}'.{registry.near_names(function, known)}")
    return found


def function_hash(function: Callable[..., Any]) -> str:
    """12 hexadecimal digits of what a function does, whatever its comments and its docstring say."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def _is_function(value: Any) -> bool:
    return callable(value) and inspect.isfunction(inspect.unwrap(value))  # it may be cached


def check_numbers(paper: Paper, name: str) -> Mapping[str, float]:
    """What a check returns.

    Raises:
      NotMeasured: it says so, or what it needs is not there.
      ConfigError: it is wrong itself.
    """
    found = _called(paper, name)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{paper.folder}: the check '{name}' returned {found!r}, not numbers by name.")
    return found


def check_value(paper: Paper, claim: Claim, numbers: Mapping[str, float]) -> float:
    """The number that a claim means of those that its check returned."""
    if claim.metric is None or claim.metric not in numbers:
        known = list(numbers)
        raise ConfigError(
            f"{paper.folder / 'claims.toml'}: claims {claim.id}: the check '{claim.check}' returns no "
            f"'{claim.metric}'.{registry.near_names(str(claim.metric), known)}\n  it returns: {', '.join(known)}"
        )
    return _finite(claim, numbers[claim.metric])


def run_value(paper: Paper, claim: Claim, runs: Mapping[str, RunAt]) -> float:
    """The number of a claim on runs of one seed.

    Raises:
      NotMeasured: it cannot be had of them.
    """
    if claim.judge is not None:
        return _finite(claim, _called(paper, claim.judge, runs))
    assert claim.metric is not None
    return _finite(claim, runs[claim.runs[0]].last(claim.metric))


def _called(paper: Paper, name: str, *arguments: Any) -> Any:
    function = function_of(paper, name)
    try:
        return function(*arguments)
    except LmlabError as error:
        raise error if isinstance(error, NotMeasured | ConfigError) else NotMeasured(str(error)) from error
    except Exception as error:
        raise ConfigError(
            f"{paper.folder}: '{name}' failed: {type(error).__name__}: {str(error).strip()} (--debug shows where)"
        ) from error


def _finite(claim: Claim, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"the claim '{claim.id}' was given {value!r}, which is no number.") from None
    if not math.isfinite(found):
        raise NotMeasured(f"what was measured is not finite: {found}")
    return found
