"""Sweep folders made by hand, as `lmlab sweep` leaves them behind, with numbers that a test chooses."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmlab.config import spec_to_json
from lmlab.contracts import FrozenDict, Spec

Settings = Mapping[str, str]

STEPS = 20


def make_sweep(
    folder: Path,
    settings: Sequence[Settings],
    seeds: Sequence[int],
    value: Callable[[Settings, int], float],
    *,
    baseline: Settings | None = None,
    statuses: Mapping[str, str] | None = None,
    name: str = "made",
    steps: int = STEPS,
    every: int = 5,
) -> list[dict[str, Any]]:
    """Writes a sweep whose trial of `settings` and `seed` ends at `value`; gives what sweep.json has of its trials.

    Args:
      statuses: trial id -> status, where it is not `ok`; `pending` leaves no folder.
    """
    trials = [
        {"id": trial_id(one, seed), "settings": dict(one), "seed": seed, "group": 0}
        for one in settings
        for seed in seeds
    ]
    axes = list(dict.fromkeys(axis for one in settings for axis in one))
    saved = {"name": name, "axes": axes, "baseline": baseline, "seeds": list(seeds), "trials": trials}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(saved))
    for trial in trials:
        status = (statuses or {}).get(trial["id"], "ok")
        if status != "pending":
            end = value(trial["settings"], trial["seed"])
            _write_trial(folder / "trials" / trial["id"], trial, name, status, end, steps, every)
    return trials


def trial_id(settings: Settings, seed: int) -> str:
    """12 hexadecimal digits."""
    return hashlib.sha256(json.dumps([sorted(settings.items()), seed]).encode()).hexdigest()[:12]


def _write_trial(
    run: Path, trial: Mapping[str, Any], name: str, status: str, end: float, steps: int, every: int
) -> None:
    run.mkdir(parents=True)
    message = None if status == "ok" else f"it ended as {status}"
    record = {
        "id": trial["id"], "sweep": name, "settings": trial["settings"], "seed": trial["seed"], "status": status,
        "message": message, "traceback": None if status == "ok" else "Traceback (most recent call last):\n  ...",
        "attempts": [{"started": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "status": status}],
    }  # fmt: skip
    (run / "trial.json").write_text(json.dumps(record))
    spec = Spec("settings", "experiment", FrozenDict({"seed": trial["seed"], **trial["settings"]}))
    (run / "config.json").write_text(json.dumps({"spec": spec_to_json(spec)}))
    lines = []
    for step in range(every, (steps if status == "ok" else every) + 1, every):
        now = end + (steps - step) / steps
        timing = {"time": 1.0, "seconds": 0.5, "steps_per_second": every / 0.5, "tokens_per_second": 700.0}
        lines.append({"step": step, "phase": "train", "loss": now + 0.1, "timing": timing})
        lines.append({"step": step, "phase": "eval", "valid/nats_per_token": now, "valid/nats": 7 * now, "timing": {}})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
