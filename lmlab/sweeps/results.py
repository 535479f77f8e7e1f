"""What a sweep's folder holds, read as it stands: finished trials, failed ones, those at work and those not begun.

Nothing here needs arrays or a device, and no file of a trial can stop the reading: what is damaged is shown as damaged.
"""

from __future__ import annotations

import fcntl
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lmlab.config import spec_from_json
from lmlab.contracts import Spec
from lmlab.errors import ConfigError, RunFolderError
from lmlab.sweeps.records import Curve, curve, final_numbers, read_records, tokens_and_seconds
from lmlab.training.files import read_json
from lmlab.training.metrics_file import NAME as METRICS

STATUSES = (
    "ok", "pruned", "running", "waiting", "left", "interrupted", "pending", "oom", "nan", "killed", "config", "data",
    "failed", "damaged",
)  # fmt: skip
"""What a trial may be: as its record says, `left` where it says `running` and the process is gone, `pending` before it
has a record, `damaged` where that cannot be read."""

FAILED = frozenset({"oom", "nan", "killed", "config", "data", "failed", "damaged"})

_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Trial:
    """One trial and what is on record of it.

    Attributes:
      id: its name in `trials/`.
      settings: axis -> value, as gin writes it; without the seed.
      seed: of the experiment.
      status: one of `STATUSES`.
      message: one line on why it is so, where there is something to say.
      traceback: of a failure.
      seconds: wall time of all attempts together; None where it is not on record.
      folder: its run folder.
      records: the training records and evaluations in metrics.jsonl.
    """

    id: str
    settings: Mapping[str, str]
    seed: int
    status: str
    folder: Path
    message: str | None = None
    traceback: str | None = None
    seconds: float | None = None
    records: tuple[Mapping[str, Any], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self.status in FAILED

    @cached_property
    def final(self) -> dict[str, float]:
        """The numbers that it ended with; see `records`."""
        return final_numbers(self.records)

    def curve(self, metric: str) -> Curve:
        """A metric over the steps at which it was recorded."""
        return curve(self.records, metric)

    @cached_property
    def _training(self) -> tuple[float, float]:
        return tokens_and_seconds(self.records)

    @property
    def tokens(self) -> float:
        """Tokens trained on."""
        return self._training[0]

    @property
    def tokens_per_second(self) -> float | None:
        """While it trained, without compiling, evaluating and saving."""
        tokens, seconds = self._training
        return tokens / seconds if seconds else None

    @cached_property
    def sizes(self) -> dict[str, int] | None:
        """Numbers in each of the model's parameters by path, by the newest checkpoint; None where none says so."""
        for step in _committed(self.folder / "checkpoints"):
            try:
                arrays = json.loads((step / "note" / "metadata").read_text(encoding="utf-8"))["arrays"]
                found = {name: math.prod(shape) for name, (shape, _, _) in arrays.items()}
                return {name.removeprefix("params/"): n for name, n in found.items() if name.startswith("params/")}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return None

    @property
    def parameters(self) -> int | None:
        """Numbers in the model's parameters together; None where no checkpoint says so."""
        return None if self.sizes is None else sum(self.sizes.values())

    @cached_property
    def configuration(self) -> Spec | None:
        """What was run; None where it is not on record, or cannot be read."""
        try:
            found = spec_from_json(json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["spec"])
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            return None
        return found if isinstance(found, Spec) else None


class OverCompute(NamedTuple):
    """What sweep.json says of a ladder (`sweep.over_compute`)."""

    keys: tuple[str, ...]
    held_out: int


@dataclass(frozen=True)
class SweepResults:
    """A sweep as it stands.

    Attributes:
      name: of the sweep.
      folder: where it is.
      axes: what is varied, in order.
      baseline: the settings that everything is compared with, if the sweep names some.
      seeds: of every variant.
      trials: in the sweep's order.
      over_compute: what its ladder binds, and how many of the largest sizes it holds out; None where it climbs none.
    """

    name: str
    folder: Path
    axes: tuple[str, ...]
    baseline: Mapping[str, str] | None
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...] = field(default=())
    over_compute: OverCompute | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many trials have each status, in the order of `STATUSES`; those that none has are left out."""
        found = [trial.status for trial in self.trials]
        return {status: found.count(status) for status in STATUSES if status in found}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every number that some finished trial ends with."""
        return tuple(dict.fromkeys(name for trial in self.trials if trial.status == "ok" for name in trial.final))


def read_results(folder: str | Path) -> SweepResults:
    """Everything on record of the sweep in `folder`.

    Raises:
      RunFolderError: it holds no sweep, or its sweep.json cannot be read or is not of a sweep.
    """
    path = Path(folder) / "sweep.json"
    if not path.exists():
        raise RunFolderError(f"{folder} is no sweep: it has no sweep.json. Give the folder that 'lmlab sweep' made.")
    way_out = "Run the same 'lmlab sweep' again: it writes the file anew, and keeps the trials."
    saved = read_json(path, way_out)
    try:
        return SweepResults(
            name=str(saved["name"]),
            folder=Path(folder),
            axes=tuple(str(axis) for axis in saved["axes"]),
            baseline=None if saved["baseline"] is None else _settings(saved["baseline"]),
            seeds=tuple(int(seed) for seed in saved["seeds"]),
            trials=tuple(_planned(Path(folder), trial) for trial in saved["trials"]),
            over_compute=_climbed(saved.get("over_compute")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunFolderError(f"{path} is not the record of a sweep ({what}). {way_out}") from None


def _climbed(saved: Mapping[str, Any] | None) -> OverCompute | None:
    return None if saved is None else OverCompute(tuple(map(str, saved["keys"])), int(saved["held_out"]))


def _planned(folder: Path, planned: Mapping[str, Any]) -> Trial:
    """The trial that sweep.json plans, as its own folder shows it."""
    if not _ID.fullmatch(planned["id"]):
        raise ValueError(f"a trial cannot be called {planned['id']!r}")
    run = folder / "trials" / planned["id"]
    plan: dict[str, Any] = {
        "id": planned["id"], "settings": _settings(planned["settings"]), "seed": int(planned["seed"]), "folder": run,
    }  # fmt: skip
    try:
        if not (run / "trial.json").exists():
            return Trial(**plan, status="pending")
        record = _record(run / "trial.json", plan["settings"], plan["seed"])
        if record["status"] == "running" and not _held(run / ".trial.lock"):
            record["status"] = "left"
        return Trial(**plan, **record, records=read_records(run / METRICS))
    except (OSError, RunFolderError) as error:
        return Trial(**plan, status="damaged", message=one_line(str(error)))


def _record(path: Path, settings: Mapping[str, str], seed: int) -> dict[str, Any]:
    """What trial.json says of how the trial went.

    Raises:
      RunFolderError: it cannot be read, says nothing that can be understood, or is of other settings than planned.
    """
    saved = read_json(path, "Delete it and run the sweep again: the trial is then looked at anew.")
    try:
        status, message, traceback = saved["status"], saved.get("message"), saved.get("traceback")
        same = _settings(saved["settings"]) == settings and saved["seed"] == seed
        seconds = [float(attempt["seconds"]) for attempt in saved["attempts"] if attempt.get("seconds") is not None]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunFolderError(f"{path} is not the record of a trial.") from None
    if not same:
        raise RunFolderError(f"{path} is of other settings, or of another seed, than sweep.json has for this trial.")
    if status not in STATUSES:
        raise RunFolderError(f"{path} has the status {status!r}, which lmlab does not know.")
    return {
        "status": status,
        "message": one_line(str(message)) if message else None,
        "traceback": str(traceback) if traceback else None,
        "seconds": sum(seconds) if seconds else None,
    }


def _held(lock: Path) -> bool:
    """Whether a living process is at work on the trial whose lock this is; writes nothing."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not take each other for a worker
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def one_line(text: str) -> str:
    """The first line, without what people do not read."""
    return " ".join(text.strip().split("\n")[0].split())


def _settings(saved: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in saved.items()}


def _committed(checkpoints: Path) -> list[Path]:
    """The folders of saved states, the newest first."""
    if not checkpoints.is_dir():
        return []
    return sorted((p for p in checkpoints.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name), reverse=True)
