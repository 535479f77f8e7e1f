"""The configurations of a paper's runs, and hashes that say whether a kept number is of the present ones."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from lmlab.config import Resolved, identity, resolve, spec_hash, spec_to_json, with_values
from lmlab.contracts import Spec
from lmlab.papers.claims import Claim, Paper, RunPlan
from lmlab.papers.measuring import function_hash, function_of
from lmlab.sweeps.trials import Trial


def measured_hash(spec: Spec) -> str:
    """12 hexadecimal digits of what is learned and how it is measured, whatever else differs (devices, logging)."""
    evaluators = [spec_to_json(evaluator) for evaluator in spec.kwargs["evaluators"]]
    text = json.dumps([spec_hash(identity(spec)), evaluators], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class PaperTrial(Trial):
    """A run of a paper with one seed; it has the same folder however far it is to be trained now."""

    @property
    def id(self) -> str:
        """See `measured_hash`."""
        return measured_hash(self.resolved.spec)


class Configurations:
    """The runs of a paper, resolved when they are asked for.

    Args:
      paper: the paper.
    """

    def __init__(self, paper: Paper) -> None:
        self.paper = paper
        self._base = functools.cache(self._resolve_base)
        self.run_hash = functools.cache(self._run_hash)

    def step(self, run: str, share: float) -> int:
        """The step at a share of a run's steps; a multiple of its steps per dispatch."""
        spec = self._base(run).spec
        steps, together = spec.kwargs["steps"], spec.kwargs["steps_per_dispatch"]
        return steps if share == 1 else max(together, round(share * steps / together) * together)

    def trial(self, run: str, seed: int, share: float, group: int) -> PaperTrial:
        """The run with a seed, to be trained up to a share of its steps, and measured on the way there.

        Raises:
          ConfigError: its file cannot be run as written.
        """
        plan = self.paper.runs[run]
        looks = sorted({self.step(run, at) for at in plan.early})
        stop = None if share == 1 else self.step(run, share)
        texts = [f"experiment.seed = {seed}", f"experiment.eval_at = {looks}", f"experiment.stop_at = {stop}"]
        return PaperTrial({"run": run}, seed, group, self._resolve(plan, texts))

    def of(self, claim: Claim, seed: int | None) -> str:
        """12 hexadecimal digits of everything that a claim's number depends on, but for the code of lmlab.

        Raises:
          ConfigError: a run, or the function that judges, cannot be had.
        """
        runs = [self.run_hash(run, seed) for run in claim.runs]
        function = claim.judge or claim.check
        judge = function_hash(function_of(self.paper, function)) if function else None
        text = json.dumps([runs, claim.metric, function, judge])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _run_hash(self, run: str, seed: int) -> str:
        return measured_hash(with_values(self._base(run).spec, {"seed": seed}))

    def _resolve_base(self, run: str) -> Resolved:
        return self._resolve(self.paper.runs[run], ())

    def _resolve(self, plan: RunPlan, texts: Iterable[str]) -> Resolved:
        return resolve([str(plan.file)], [*plan.overrides, *texts])
