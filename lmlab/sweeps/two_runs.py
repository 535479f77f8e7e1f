"""Two runs side by side: the first step at which their data or their numbers part, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lmlab.data import compare_fingerprints
from lmlab.errors import CheckpointError, LmlabError
from lmlab.sweeps.records import Record, curve
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.run import Run


class Point(NamedTuple):
    """One metric of two runs at one step."""

    step: int
    a: float
    b: float

    @property
    def difference(self) -> float:
        """What b has more than a."""
        return self.b - self.a

    def differs(self, tolerance: float) -> bool:
        """Whether the two are further apart than this share of the larger one; two nan are equal."""
        if np.isnan(self.a) or np.isnan(self.b):
            return not (np.isnan(self.a) and np.isnan(self.b))
        return self.a != self.b and not abs(self.difference) <= tolerance * max(abs(self.a), abs(self.b))


def shared_points(a: Iterable[Record], b: Iterable[Record], metric: str) -> list[Point]:
    """A metric at all steps at which both runs recorded it."""
    ours, theirs = (dict(zip(*curve(records, metric), strict=True)) for records in (a, b))
    return [Point(step, ours[step], theirs[step]) for step in sorted(ours.keys() & theirs.keys())]


def first_difference(points: Sequence[Point], tolerance: float = 0.0) -> Point | None:
    """The first step at which two curves differ by more than `tolerance`; None where they never do."""
    return next((point for point in points if point.differs(tolerance)), None)


def thinned(points: Sequence[Point], count: int) -> list[Point]:
    """About `count` of some points, evenly over them, with the first and the last."""
    if len(points) <= count:
        return list(points)
    return [points[k] for k in np.linspace(0, len(points) - 1, count).round().astype(int)]


@dataclass(frozen=True)
class DataComparison:
    """Whether two runs read the same.

    Attributes:
      differences: of their pipelines' fingerprints, a line each; None: they are the same, and so is every batch.
      step: the first step whose batch differs (0 is the first batch); None where none was found.
      arrays: which arrays of that batch differ.
      looked_at: steps whose batches were compared.
      problem: why no batches could be compared.
    """

    differences: str | None
    step: int | None = None
    arrays: tuple[str, ...] = ()
    looked_at: int = 0
    problem: str | None = None


def compare_data(a: Run, b: Run, most: int) -> DataComparison:
    """Compares the data by the fingerprints in the newest checkpoints, and if these differ, batch by batch.

    Args:
      a, b: the runs.
      most: batches to compare at most.
    """
    ours, theirs = _fingerprint(a), _fingerprint(b)
    found = None if ours is None or theirs is None else compare_fingerprints(ours, theirs)
    if ours is not None and theirs is not None and found is None:
        return DataComparison(None)
    try:
        batches = [_batches(run, fingerprint) for run, fingerprint in ((a, ours), (b, theirs))]
    except LmlabError as error:
        return DataComparison(found, problem=str(error))
    if found is None:
        found = compare_fingerprints(*(data.fingerprint() for data in batches))
        if found is None:
            return DataComparison(None)
    for step in range(most):
        arrays = differing_arrays(*(data.batch(step) for data in batches))
        if arrays:
            return DataComparison(found, step, arrays, step + 1)
    return DataComparison(found, looked_at=most)


def differing_arrays(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The names under which two batches do not hold the same array."""
    names = dict.fromkeys([*a, *b])
    return tuple(name for name in names if name not in a or name not in b or not np.array_equal(a[name], b[name]))


def _fingerprint(run: Run) -> Mapping[str, Any] | None:
    """What the newest checkpoint says of the data; None where there is none, or it has read nothing yet."""
    checkpoints = Checkpoints(run.files.checkpoints)
    try:
        steps = checkpoints.steps()
        return (checkpoints.note(steps[-1]).fingerprint or None) if steps else None
    except CheckpointError:
        return None
    finally:
        checkpoints.close()


def _batches(run: Run, fingerprint: Mapping[str, Any] | None) -> Any:
    """The training batches of a run, opened anew.

    Raises:
      LmlabError: the data is not here any more, or is not what the run read.
    """
    opened = run.program.data.train
    if fingerprint and (changed := compare_fingerprints(fingerprint, opened.fingerprint())):
        raise CheckpointError(f"the data of {run.folder} is no longer what it was trained on:\n{changed}")
    return opened


def shared_metric(a: Mapping[str, float], b: Mapping[str, float], usual: str) -> str | None:
    """The evaluation metric to draw for two runs by what they end with: `usual`, else the first that both have."""
    shared = [name for name in a if name in b and not name.startswith("train/")]
    return usual if usual in shared else next(iter(shared), None)
