"""How a sweep is trained where nobody said it: by what a few steps take, one way and the other.

python -m lmlab.sweeps.choosing FOLDER GROUP [PROCESSOR ...]    # seconds of a step, as JSON
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmlab.errors import LmlabError
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.launchers.local import shares

FEWEST_STEPS = 1_000
"""Sweeps with fewer steps in all are trained one after the other: measuring would take longer than what it saves."""
MOST_WORKERS = 8
WORTH = 0.9
"""Another way is taken if it needs at most this part of the time."""
SECONDS, WARM = 1.0, 3
"""How long steps are timed, and how many are not."""


@dataclass(frozen=True)
class Choice:
    """How a sweep is trained.

    Attributes:
      workers, strategy: see `space.Sweep`.
      why: one line for a person; empty where nothing was measured.
    """

    workers: int
    strategy: str
    why: str = ""


def choose(folder: SweepFolder, trials: Sequence[str], steps: int) -> Choice:
    """The fastest way for trials of this sweep on this machine.

    Args:
      folder: of the sweep, written.
      trials: ids of those that are left.
      steps: of all of them together.
    """
    if steps < FEWEST_STEPS or len(trials) < 2:
        return Choice(1, "sequential")
    try:
        (whole,) = _measured(folder, [()])
        if whole["platform"] != "cpu":
            return _at_once(whole)
        workers = min(len(os.sched_getaffinity(0)), len(trials), MOST_WORKERS)
        if workers == 1:
            return Choice(1, "sequential")
        each = statistics.fmean(one["sequential"] for one in _measured(folder, shares(workers)))
    except LmlabError as error:  # the worker that meets it will say it of its trial
        return Choice(1, "sequential", f"not measured: {error}")
    several = each / workers
    told = f"a step takes {_ms(whole['sequential'])} in one process, and one of {workers} comes every {_ms(several)}"
    return Choice(workers if several < WORTH * whole["sequential"] else 1, "sequential", told)


def _at_once(found: Mapping[str, Any]) -> Choice:
    if found["vmap"] is None:
        return Choice(1, "sequential")
    told = (
        f"a step takes {1e3 * found['sequential']:.1f} ms alone, and {1e3 * found['vmap']:.1f} ms with others at once"
    )
    return Choice(1, "vmap" if found["vmap"] < WORTH * found["sequential"] else "sequential", told)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def estimate(folder: SweepFolder, steps: Mapping[int, int]) -> float:
    """Seconds that all trials take one after the other, by a few steps of each group.

    Args:
      folder: of the sweep, written.
      steps: of all trials of a group together, by its number.

    Raises:
      LmlabError: a group cannot be trained.
    """
    return sum(_measured(folder, [()], group)[0]["sequential"] * count for group, count in steps.items())


def _measured(folder: SweepFolder, processors: Sequence[Sequence[int]], group: int = 0) -> list[dict[str, Any]]:
    """What processes find that measure at the same time, each on processors of its own."""
    command = [sys.executable, "-m", "lmlab.sweeps.choosing", str(folder.path), str(group)]
    running = [
        subprocess.Popen([*command, *map(str, own)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for own in processors
    ]
    said = [process.communicate() for process in running]
    for process, (_, error) in zip(running, said, strict=True):
        if process.returncode:
            raise LmlabError((error.strip().splitlines() or ["it ended without a word"])[-1])
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def measure(folder: SweepFolder, number: int) -> dict[str, Any]:
    """Seconds of a step of a group of the sweep: alone, and as one of several at once where that may be of use.

    The programs that are compiled here are found in the cache by those who train.
    """
    import jax

    from lmlab.sweeps.together import Together, differing

    members = [trial["id"] for trial in folder.read()["trials"] if trial["group"] == number]
    resolved = [folder.trial(member).resolved() for member in members]
    group = Together(differing([one.spec for one in resolved]))
    program = group.make(resolved[0])
    state, batch = program.init_state(), program.partitioner.place(_batch(program), program.leading)
    dispatch, held = program.compile_dispatch(), [state]

    def step() -> Any:
        held[0], metrics = dispatch.call(held[0], batch)
        return metrics

    alone = _seconds(step) / program.experiment.steps_per_dispatch
    found = {"platform": jax.default_backend(), "sequential": alone, "vmap": None}
    if jax.default_backend() != "cpu" and len(members) > 1:
        found["vmap"] = _of_many(group, program, min(len(members), folder.read()["population"]))
    return found


def _of_many(group: Any, member: Any, places: int) -> float | None:
    """Seconds of a step of one trial where so many are stepped at once; None where they cannot be."""
    from lmlab.sweeps.population import AtOnce

    try:
        together = AtOnce(group, member, places)
    except (TypeError, LmlabError):
        return None
    together.fill([member], {0: member.init_state()})
    batch = member.partitioner.place(_batch(member), member.leading)

    def step() -> Any:
        together.step({0: batch})
        return together.result(0)[1]

    return _seconds(step) / places / member.experiment.steps_per_dispatch


def _batch(program: Any) -> Any:
    import numpy as np

    one, together = program.data.train.batch, program.experiment.steps_per_dispatch
    if together == 1:
        return one(0)
    parts = [one(k) for k in range(together)]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _seconds(step: Callable[[], Any]) -> float:
    import jax

    for _ in range(WARM):
        jax.block_until_ready(step())
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        jax.block_until_ready(step())
        count += 1
    return (time.perf_counter() - begun) / count


def main(folder: str, group: str, *processors: str) -> None:
    """Prints what `measure` finds."""
    if processors:
        os.sched_setaffinity(0, map(int, processors))
    from lmlab.training.compilation_cache import use_compilation_cache

    use_compilation_cache()
    print(json.dumps(measure(SweepFolder(folder), int(group))))


if __name__ == "__main__":
    main(*sys.argv[1:])
