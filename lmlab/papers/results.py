"""What was measured of a claim, kept in `experiments/papers/NAME/results/CLAIM.json`: numbers, and how they were got.

No verdict is kept: it is made of the numbers and of the band in claims.toml whenever it is asked for. A digest over the
file says whether a number was changed after it was written; such a file is refused, not judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmlab.errors import RunFolderError
from lmlab.papers.claims import Claim, Paper
from lmlab.training.files import read_json, replace_json, writing


@dataclass(frozen=True)
class SeedResult:
    """What was measured with one seed.

    Attributes:
      seed: None of a check.
      of: a hash of what was measured: configurations, evaluators, and the function that judges; see `reproducing`.
      values: share of the steps ("0.1", "1" is the end) -> the claim's number there.
      at: when, UTC.
      loss: the sum of the runs' training losses at their end; None of a check, and of a run that has none.
      record: of each run its hashes, steps and seconds; commit, packages and devices.
    """

    seed: int | None
    of: str
    values: Mapping[str, float]
    at: str
    loss: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured_at(self) -> datetime:
        """When it was measured."""
        return datetime.fromisoformat(self.at)


def share_key(share: float) -> str:
    """How a share of the steps is written: 0.1, 1."""
    return f"{share:g}"


def now() -> str:
    """The time, as results have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def result_file(paper: Paper, claim: Claim) -> Path:
    """Where a claim's numbers are kept."""
    return paper.folder / "results" / f"{claim.id}.json"


def read_results(paper: Paper, claim: Claim) -> tuple[SeedResult, ...]:
    """What is kept of a claim; nothing where it was never measured.

    Raises:
      RunFolderError: the file is damaged, of another claim, or was changed after it was written.
    """
    path = result_file(paper, claim)
    if not path.exists():
        return ()
    again = f"Put it back, or delete it and measure anew: lmlab reproduce {paper.name} --claim {claim.id}"
    saved = read_json(path, again)
    try:
        digest, rest = saved["digest"], {key: value for key, value in saved.items() if key != "digest"}
        if digest != _digest(rest):
            raise RunFolderError(f"{path} was changed after it was measured: its digest is another. {again}")
        if (saved["paper"], saved["claim"]) != (paper.name, claim.id):
            raise RunFolderError(f"{path} is of the claim '{saved['claim']}' of '{saved['paper']}'. {again}")
        found = tuple(SeedResult(**result) for result in saved["results"])
        for result in found:
            result.measured_at  # noqa: B018  (a date, or an error)
            {float(share): float(value) for share, value in result.values.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunFolderError(f"{path} is no record of what was measured. {again}") from None
    return found


def write_results(paper: Paper, claim: Claim, results: Sequence[SeedResult]) -> None:
    """Replaces what is kept of a claim."""
    path = result_file(paper, claim)
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
    ordered = sorted(results, key=lambda result: -1 if result.seed is None else result.seed)
    rest: dict[str, Any] = {"paper": paper.name, "claim": claim.id, "results": [asdict(one) for one in ordered]}
    replace_json(path, {**rest, "digest": _digest(rest)})


def _digest(rest: Mapping[str, Any]) -> str:
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
