"""A paper reproduced: what is missing is run by the sweep engine or called, what was measured is kept and judged."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lmlab.errors import LmlabError, RunFolderError
from lmlab.papers.budget import Part, Selection, seeds_of, select
from lmlab.papers.claims import Claim, Device, Paper
from lmlab.papers.configurations import Configurations, PaperTrial
from lmlab.papers.judging import Verdict, judged
from lmlab.papers.measuring import NotMeasured, RunAt, check_numbers, check_value, run_value
from lmlab.papers.results import SeedResult, now, read_results, share_key, write_results
from lmlab.sweeps.folder import FAILED, SweepFolder
from lmlab.sweeps.launchers.local import Local
from lmlab.sweeps.launchers.watching import Tell
from lmlab.sweeps.records import curve, read_records
from lmlab.sweeps.space import Sweep
from lmlab.sweeps.together import shape_hash
from lmlab.sweeps.trials import Plan
from lmlab.training.environment import describe_environment
from lmlab.training.files import read_json


class Reproduction:
    """The claims of a paper, what is kept of them, and what is done about those that were not measured.

    Args:
      paper: the paper.
      runs: the folder for run folders; the paper's own is in it.
      seeds: how many seeds of each run (None: as claims.toml says).
      again: measure anew what is kept already.
    """

    def __init__(self, paper: Paper, runs: Path, seeds: int | None = None, again: bool = False) -> None:
        self.paper = paper
        self.folder = SweepFolder(runs / paper.name)
        self.configurations = Configurations(paper)
        self._count = seeds
        self._again = again
        self._notes: dict[str, str] = {}
        self._numbers = functools.cache(lambda check: check_numbers(paper, check))

    # --- Verdicts -------------------------------------------------------------------------------------------------

    def verdict(self, claim: Claim) -> Verdict:
        """The verdict on what is kept of a claim."""
        try:
            every = read_results(self.paper, claim)
        except RunFolderError as error:
            return Verdict("damaged", note=str(error))
        current = self._current(claim, every)
        found = judged(claim, current)
        if found.kind == "not run" and every:
            return Verdict("not run", note="what is kept was measured with another configuration or judge")
        return found

    def _current(self, claim: Claim, results: Iterable[SeedResult]) -> list[SeedResult]:
        """The results that are of the present configuration."""
        return [result for result in results if result.of == self.configurations.of(claim, result.seed)]

    # --- What is to be done -----------------------------------------------------------------------------------------

    def select(self, claims: Iterable[Claim], device: Device, budget: float) -> Selection:
        """What fits into so many minutes; see `budget.select`."""
        asked = list(claims)
        parts = {(run, seed) for claim in asked for run in claim.runs for seed in self._seeds(claim)}
        return select(self.paper, asked, self._missing, {part: self._trained(*part) for part in parts}, device, budget)

    def _seeds(self, claim: Claim) -> tuple[int, ...]:
        return seeds_of(self.paper.runs[claim.runs[0]], self._count)

    def _missing(self, claim: Claim) -> Sequence[int | None]:
        wanted: Sequence[int | None] = self._seeds(claim) if claim.runs else (None,)
        if self._again:
            return wanted
        try:
            kept = self._current(claim, read_results(self.paper, claim))
        except RunFolderError:
            return ()  # it is refused, not replaced
        ended = {result.seed for result in kept if share_key(1) in result.values}
        return [seed for seed in wanted if seed not in ended]

    def _trained(self, run: str, seed: int) -> float:
        """The share of its steps that a run folder has behind it."""
        status = self._run_status(run, seed)
        return status.get("step", 0) / status["steps"] if status.get("steps") else 0.0

    def _run_status(self, run: str, seed: int) -> dict[str, Any]:
        return self.folder.trial(self.configurations.run_hash(run, seed)).status()

    # --- Doing it ---------------------------------------------------------------------------------------------------

    def call_checks(self, claims: Iterable[Claim], tell: Callable[[str], None]) -> None:
        """Measures claims that need no training, and keeps their numbers."""
        for claim in claims:
            assert claim.check is not None
            tell(f"{self.paper.name}: {claim.check} for {claim.id}")
            try:
                value = check_value(self.paper, claim, self._numbers(claim.check))
            except LmlabError as error:
                self._notes[claim.id] = str(error)
                continue
            record = {"environment": _kept(describe_environment()) | {"compared_with": _oracles()}}
            kept = SeedResult(None, self.configurations.of(claim, None), {share_key(1): value}, now(), None, record)
            write_results(self.paper, claim, [kept])

    def train(self, parts: Mapping[Part, float], tell: Callable[[SweepFolder], Tell]) -> None:
        """Brings runs to shares of their steps, going on with what is there.

        Raises:
          ConfigError: a run cannot be run as written.
          Interrupted: a signal came; all states are saved.
        """
        if not parts:
            return
        trials = self._trials(parts)
        self.folder.write(Plan(self.paper.name, Sweep(), (), None, tuple(trials), 0))
        for trial in trials:
            self._extend(trial)
        Local().run(self.folder, 1, tell(self.folder))

    def _trials(self, parts: Mapping[Part, float]) -> list[PaperTrial]:
        """Trials of runs that differ in numbers alone, the seed included, share their programs."""
        groups: dict[str, int] = {}
        found = []
        for (run, seed), share in parts.items():
            shape = shape_hash(self.configurations.trial(run, seed, share, 0).resolved.spec)
            found.append(self.configurations.trial(run, seed, share, groups.setdefault(shape, len(groups))))
        return sorted(found, key=lambda trial: trial.group)

    def _extend(self, trial: PaperTrial) -> None:
        """Has a run folder that was left at an early look, or whose run failed, be gone on with."""
        run = self.folder.trial(trial.id)
        with self.folder.claimed(trial.id) as mine:
            record = self.folder.record(trial.id) if mine else None
            if record is None:
                return
            run.write_config(trial.resolved)
            spec = trial.resolved.spec
            if record.status in FAILED or run.status().get("step", 0) < (
                spec.kwargs["stop_at"] or spec.kwargs["steps"]
            ):
                record.status = "interrupted"
                self.folder.write_record(record)

    # --- Keeping what was measured ----------------------------------------------------------------------------------

    def collect(self, claims: Iterable[Claim]) -> None:
        """Judges what the run folders hold, and keeps it."""
        for claim in claims:
            if claim.runs:
                self._collect(claim)

    def _collect(self, claim: Claim) -> None:
        try:
            every = read_results(self.paper, claim)
        except RunFolderError:
            return
        kept = {result.seed: result for result in self._current(claim, every)}
        before = dict(kept)
        for seed in self._seeds(claim):
            found = self._result(claim, seed)
            known = kept.get(seed)
            if found is not None and (known is None or self._again or not known.values.keys() >= found.values.keys()):
                kept[seed] = found
        if kept and kept != before:
            write_results(self.paper, claim, list(kept.values()))

    def _result(self, claim: Claim, seed: int) -> SeedResult | None:
        """What the run folders of a seed say of a claim; None where they say nothing."""
        values: dict[str, float] = {}
        for share in (*(early.at for early in claim.early), 1.0):
            try:
                runs = {run: self._run_at(run, seed, share) for run in claim.runs}
                values[share_key(share)] = run_value(self.paper, claim, runs)
            except NotMeasured as error:
                self._notes[claim.id] = str(error)
        if not values:
            return None
        ids = {run: self.configurations.run_hash(run, seed) for run in claim.runs}
        losses = [loss for trial in ids.values() for loss in self._losses(trial)[-1:]]
        of = self.configurations.of(claim, seed)
        record = {
            "runs": {run: self._run_record(ids[run]) for run in claim.runs},
            "environment": self._environment(ids),
        }
        return SeedResult(seed, of, values, now(), sum(losses) if losses else None, record)

    def _losses(self, trial: str) -> list[float]:
        return curve(read_records(self.folder.trial(trial).metrics), "train/loss")[1]

    def _run_at(self, run: str, seed: int, share: float) -> RunAt:
        """A run at a share of its steps.

        Raises:
          NotMeasured: it has not come there, and why.
        """
        trial = self.configurations.run_hash(run, seed)
        folder, record = self.folder.trial(trial), self.folder.record(trial)
        status = folder.status()
        step = self.configurations.step(run, share)
        if status.get("step", 0) < step or (share == 1 and status.get("state") != "finished"):
            why = f": {record.status}: {record.message}" if record is not None and record.message else ""
            raise NotMeasured(f"the run '{run}' of seed {seed} has not come to step {step}{why}")
        records = tuple(record for record in read_records(folder.metrics) if record["step"] <= step)
        return RunAt(folder.path, step, status["steps"], records)

    def _run_record(self, trial: str) -> dict[str, Any]:
        folder, record = self.folder.trial(trial), self.folder.record(trial)
        attempts = record.attempts if record is not None else []
        seconds = sum(attempt["seconds"] or 0.0 for attempt in attempts)
        resolved, status = folder.resolved(), folder.status()
        return {
            "id": trial, "configuration": resolved.hash, "identity": resolved.identity, "step": status["step"],
            "steps": status["steps"], "seconds": round(seconds, 1),
        }  # fmt: skip

    def _environment(self, ids: Mapping[str, str]) -> dict[str, Any]:
        trial = next(iter(ids.values()))
        path = self.folder.trial(trial).path / "environment.json"
        return _kept(read_json(path, "Train the run again."))

    def note(self, claim: Claim) -> str:
        """Why there is no number of a claim that was asked for."""
        return self._notes.get(claim.id, "")


def _oracles() -> dict[str, str]:
    """Versions of other programs that a check may compare with, where it has imported them."""
    return {name: metadata.version(name) for name in ("torch", "transformers") if name in sys.modules}


def _kept(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment is kept beside numbers: nothing that names a machine or a person."""
    git = environment.get("git", {}).get("lmlab") or {}
    found = {key: environment.get(key) for key in ("python", "versions", "devices", "cpus")}
    return {**found, "commit": git.get("commit"), "uncommitted_changes": git.get("dirty")}
