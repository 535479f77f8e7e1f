"""What a paper claims: `experiments/papers/NAME/claims.toml` as typed, checked, plain data.

title = "Hidden Markov source"                 # and source = "arXiv:..."

[runs.gru]                                     # a training run, which several claims may judge
file = "gru.gin"                               # beside claims.toml
set = ["gru.width = 64"]                       # gin statements that win over the file
seeds = [0, 1, 2]
minutes = { two_cores = 8.0, h100 = 0.5 }      # of one seed to the end

[[claims]]
id = "gru"
statement = "A GRU comes within 0.03 nats of the best possible."
source = "PAPERS, A11"
runs = ["gru"]                                 # with `metric`, a number of the last evaluation, or with
judge = "excess"                               # `judge`, a function in checks.py of the runs; or, without runs,
published = 0.0                                # `check`, a function there that needs no training, and its `metric`
unit = "nats/token"
band = [-0.02, 0.03]
why = "..."
early = [{ at = 0.1, band = [0.0, 0.2] }]      # where a right run stands at a tenth of its steps
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import lmlab
from lmlab.errors import ConfigError
from lmlab.papers.reading import NAME, Table, read_toml
from lmlab.registry import near_names

Device = Literal["two_cores", "h100"]
Over = Literal["mean", "median", "worst", "lowest_loss"]
OVERS = ("mean", "median", "worst", "lowest_loss")


class Band(NamedTuple):
    """The numbers that count as met, ends included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Cost(NamedTuple):
    """Minutes that something takes (an estimate, until it was measured)."""

    two_cores: float
    h100: float

    def on(self, device: Device) -> float:
        """Minutes on one of the two kinds of machine."""
        return self.two_cores if device == "two_cores" else self.h100


class Early(NamedTuple):
    """Where a right run stands after a share of its steps."""

    at: float
    band: Band


@dataclass(frozen=True)
class RunPlan:
    """A training run that claims judge.

    Attributes:
      file: its gin file.
      overrides: gin statements that win over it.
      seeds: that it is run with.
      cost: of one seed, to the end.
      early: shares of its steps after which it is measured too, rising; of all claims that judge it.
    """

    name: str
    file: Path
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    cost: Cost
    early: tuple[float, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One number of a paper, and what counts as having met it.

    Attributes:
      statement, source, why: for people: what is claimed, where it is printed, and why the band is what it is.
      runs: names of the runs that measure it; none for a check.
      metric: a number of the last evaluation, or of what the check returns.
      judge, check: the function that gives the number; see `lmlab.papers.measuring`.
      published: the paper's number; None where it has none.
      over: what is judged of several seeds: their mean, their median, the one that is furthest from the band, or the
        one of the lowest training loss at its end.
      cost: of a check; of a claim with runs, the runs have it.
    """

    id: str
    statement: str
    source: str
    band: Band
    why: str
    runs: tuple[str, ...] = ()
    metric: str | None = None
    judge: str | None = None
    check: str | None = None
    published: float | None = None
    unit: str = ""
    over: Over = "mean"
    early: tuple[Early, ...] = ()
    cost: Cost | None = None

    def band_at(self, share: float) -> Band | None:
        """The band after a share of the steps; None where there is none."""
        return self.band if share == 1 else next((early.band for early in self.early if early.at == share), None)


@dataclass(frozen=True)
class Paper:
    """A folder with claims.toml."""

    name: str
    folder: Path
    title: str
    source: str
    runs: dict[str, RunPlan]
    claims: tuple[Claim, ...]

    def claim(self, wanted: str) -> Claim:
        """The claim of that id; ConfigError with near names."""
        for claim in self.claims:
            if claim.id == wanted:
                return claim
        ids = [claim.id for claim in self.claims]
        raise ConfigError(
            f"the paper '{self.name}' has no claim '{wanted}'.{near_names(wanted, ids)}\n  its claims: {', '.join(ids)}"
        )


def papers_folder(given: str | None) -> Path:
    """The folder of papers: what was given, else that of the repository around lmlab, else of the working directory.

    Raises:
      ConfigError: there is none.
    """
    beside = Path(lmlab.__path__[0]).parent / "experiments" / "papers"
    here = Path("experiments") / "papers"
    found = Path(given) if given is not None else beside if beside.is_dir() else here
    if not found.is_dir():
        raise ConfigError(f"{found} is no folder of papers. Name one: --papers DIR")
    return found


def paper_names(folder: Path) -> list[str]:
    """The papers in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/claims.toml"))


def read_paper(folder: Path, name: str) -> Paper:
    """The claims of a paper.

    Raises:
      ConfigError: there is no such paper, or its claims.toml says what cannot be meant.
    """
    path = folder / name / "claims.toml"
    if not NAME.fullmatch(name) or not path.is_file():
        known = paper_names(folder)
        near = near_names(name, known)
        raise ConfigError(f"no paper '{name}' in {folder}.{near}\n  papers: {', '.join(known) or 'none'}")
    table = read_toml(path)
    title, source = table.text("title"), table.text("source")
    runs = {run: _run(run, inside, path.parent) for run, inside in table.tables("runs")}
    claims = tuple(_claim(inside, runs) for inside in table.list_of_tables("claims"))
    table.done()
    _check_ids(path, claims)
    if unused := runs.keys() - {run for claim in claims for run in claim.runs}:
        raise ConfigError(f"{path}: runs.{min(unused)} is judged by no claim. Take it out, or name it in one.")
    return Paper(
        name, path.parent, title, source, {name: _with_early(run, claims) for name, run in runs.items()}, claims
    )


def _run(name: str, table: Table, folder: Path) -> RunPlan:
    file = folder / table.text("file")
    if not file.is_file():
        raise table.error("file", f"= {table.place.split(':')[0]!r}: there is no {file}")
    plan = RunPlan(name, file, table.texts("set"), table.seeds("seeds"), _cost(table.table("minutes")))
    table.done()
    return plan


def _claim(table: Table, runs: Iterable[str]) -> Claim:
    claim = Claim(
        id=table.name("id"),
        statement=table.text("statement"),
        source=table.text("source"),
        band=Band(*table.band("band")),
        why=table.text("why"),
        runs=table.texts("runs"),
        metric=table.text("metric") if table.has("metric") else None,
        judge=table.text("judge") if table.has("judge") else None,
        check=table.text("check") if table.has("check") else None,
        published=table.number("published") if table.has("published") else None,
        unit=table.text("unit", ""),
        over=table.choice("over", OVERS, "mean"),  # type: ignore[arg-type]
        early=tuple(_early(table)),
        cost=_cost(table.table("minutes")) if table.has("minutes") else None,
    )
    table.done()
    _check_claim(table, claim, list(runs))
    return claim


def _early(table: Table) -> Iterator[Early]:
    before = 0.0
    for inside in table.list_of_tables("early"):
        found = Early(inside.number("at"), Band(*inside.band("band")))
        inside.done()
        if not before < found.at < 1:
            raise inside.error("at", f"= {found.at} wants shares of the steps between 0 and 1, rising")
        before = found.at
        yield found


def _cost(table: Table) -> Cost:
    found = Cost(table.number("two_cores"), table.number("h100"))
    table.done()
    if min(found) < 0:
        raise table.error("two_cores and h100", "cannot be below 0")
    return found


def _check_claim(table: Table, claim: Claim, runs: list[str]) -> None:
    """ConfigError where it is not said, or said twice, how the number is got."""
    for run in claim.runs:
        if run not in runs:
            raise table.error("runs", f"names '{run}', which is none of the runs.{near_names(run, runs)}".rstrip(".?"))
    if claim.runs and claim.check:
        raise table.error("check", "needs no training: leave runs out, or use judge")
    if not claim.runs and not claim.check:
        raise table.error("runs", "or check must say what the number is measured by")
    if claim.runs and (claim.metric is None) == (claim.judge is None):
        raise table.error("metric", "or judge, one of them, must say which number of the runs is meant")
    if claim.metric and len(claim.runs) > 1:
        raise table.error("metric", "is of one run: a judge makes one number of several")
    if claim.check and (claim.metric is None or claim.judge is not None or claim.early):
        raise table.error("check", "goes with metric (which of its numbers is meant), and with neither judge nor early")
    if (claim.cost is None) == bool(claim.check):
        raise table.error("minutes", "are to be said of every check, and of runs in their own tables")


def _check_ids(path: Path, claims: tuple[Claim, ...]) -> None:
    ids = [claim.id for claim in claims]
    if not ids:
        raise ConfigError(f"{path}: there are no claims: [[claims]]")
    if twice := [one for one in ids if ids.count(one) > 1]:
        raise ConfigError(f"{path}: two claims have the id '{twice[0]}'. Rename one.")


def _with_early(run: RunPlan, claims: tuple[Claim, ...]) -> RunPlan:
    shares = {early.at for claim in claims if run.name in claim.runs for early in claim.early}
    return RunPlan(run.name, run.file, run.overrides, run.seeds, run.cost, tuple(sorted(shares)))
