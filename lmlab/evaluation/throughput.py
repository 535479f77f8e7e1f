"""How fast training is: side by side with other programs in one run, against the hardware, and outside XLA."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from lmlab.config import Resolved
from lmlab.contracts import FrozenDict, Spec
from lmlab.evaluation.yardstick import load_module, stepping, stepping_apart
from lmlab.registry import hooks
from lmlab.training.loop import train
from lmlab.training.program import Program

if TYPE_CHECKING:
    from lmlab.training.run import Run

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5": 197e12,
    "TPU v4": 275e12,
}
"""Peak FLOP/s of one device for dense bfloat16 (V100: float16) products, by a part of its name; first match wins."""


@dataclass
class Contestant:
    """A program that takes training steps.

    Args:
      name: for the table.
      take: takes so many steps and returns when the last one is done.
      seconds: of each turn, filled by `take_turns`.
    """

    name: str
    take: Callable[[int], None]
    seconds: list[float] = field(default_factory=list)

    def speeds(self, units: float) -> list[float]:
        """Units per second of each turn, where a turn does `units`."""
        return [units / seconds for seconds in self.seconds]


def take_turns(contestants: Sequence[Contestant], steps: int, rounds: int) -> None:
    """Times `steps` steps of each, A B C A B C ..., so that whatever else the machine does falls on all of them.

    A first turn of each, which compiles and warms up, does not count.
    """
    for contestant in contestants:
        contestant.take(steps)
    for _ in range(rounds):
        for contestant in contestants:
            start = time.perf_counter()
            contestant.take(steps)
            contestant.seconds.append(time.perf_counter() - start)


def ratios(one: Contestant, other: Contestant) -> list[float]:
    """How many times as fast `one` was as `other`, round by round."""
    return [theirs / ours for ours, theirs in zip(one.seconds, other.seconds, strict=True)]


def training(program: Program) -> Callable[[int], None]:
    """Takes steps as a run does: batches from the loader in the background, the compiled dispatch, nothing awaited."""
    experiment, partitioner = program.experiment, program.partitioner
    dispatch = program.compile_dispatch()
    batches = program.data.train.iterate(
        0,
        partitioner.rows(experiment.global_batch_size),
        experiment.prefetch,
        lambda batch: partitioner.place(batch, program.leading),
        group=experiment.steps_per_dispatch,
    )
    state = program.init_state()

    def take(steps: int) -> None:
        nonlocal state
        for _ in range(steps // experiment.steps_per_dispatch):
            state, metrics = dispatch.call(state, next(batches))
        jax.block_until_ready(metrics)

    return take


def reference(path: Path, program: Program) -> Callable[[int], None]:
    """Takes steps of a hand-written program (see `yardstick.stepping`) of the shapes of another one.

    One in JAX shares this process, and with it the memory and the threads that lmlab arranges. Others have their own.

    Args:
      path: of its module; whose name says by `torch_` that it is not in JAX.
      program: whose shapes and data are used.

    Raises:
      ModuleNotFoundError: a library that it needs is not installed.
    """
    experiment, model = program.experiment, program.experiment.model.kwargs
    shapes = {
        "vocab": program.data.vocab,
        "width": model["width"],
        "layers": model["layers"],
        "heads": model.get("heads", 1),
        "seq_len": experiment.seq_len,
        "batch": experiment.global_batch_size,
        "learning_rate": 1e-3,
    }
    batches = [program.data.train.batch(k, range(experiment.global_batch_size)) for k in range(8)]
    if path.stem.startswith("torch_"):
        return stepping_apart(path, shapes, batches)
    return stepping(load_module(path), shapes, batches)


def loader_tokens_per_second(program: Program, seconds: float = 2.0) -> float:
    """Tokens per second that the loader makes in one process, with its thread, when nobody else needs the processor."""
    experiment, train = program.experiment, program.data.train
    rows, count = range(experiment.global_batch_size), 0
    with train.iterate(0, rows, max(experiment.prefetch, 1), lambda batch: batch) as batches:
        next(batches)
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            next(batches)
            count += 1
    return count * train.tokens_per_step / passed


def flops_per_token(program: Program) -> float:
    """Training FLOPs per token, 6 N + 6 L T D: the convention of PaLM (arXiv:2204.02311, appendix B), causal.

    N counts the parameters that multiply activations: neither a table of positions nor, where the output has a
    projection of its own, the embedding. 6 L T D, half of PaLM's 12 L T D, is attention that does not compute
    what is masked; it is left out for models without heads.
    """
    shapes, roles = program.model.shapes, program.model.roles
    looked_up = {"position"} if program.experiment.model.kwargs.get("tie_embeddings") else {"position", "embedding"}
    size = sum(shape.size for path, shape in shapes.items() if roles[path] not in looked_up)
    model = program.experiment.model.kwargs
    attention = model["layers"] * program.experiment.seq_len * model["width"] if "heads" in model else 0
    return 6.0 * (size + attention)


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together, where their kind is known."""
    kind = jax.devices()[0].device_kind
    known = next((peak for name, peak in PEAKS.items() if name in kind), None)
    return None if known is None else known * jax.device_count()


@hooks.register("step_clock")
@dataclass(frozen=True)
class StepClock:
    """Writes the seconds that the main thread has computed, without waiting, up to each step, to `step_clock.txt`.

    XLA computes in threads of its own, so that differences of these are what Python costs per step.
    """

    def bind(self, run: Run) -> Callable[[int, Any, bool], None]:
        """Prepares for a run."""
        seconds: list[float] = []

        def hook(step: int, state: Any, last: bool) -> None:
            seconds.append(time.thread_time())
            if last:
                (run.folder / "step_clock.txt").write_text("\n".join(map(str, seconds)) + "\n")

        return hook


def python_seconds_per_step(spec: Spec, layers: int = 12, steps: int = 200) -> tuple[float, float]:
    """Seconds per step that the main thread of a real run computes, for a model of so many layers.

    The model is narrow, so that it takes a moment; it is as many arrays as a wide one, which is what Python sees. The
    mean is over the second half of `steps`, and includes the records of every tenth.

    Returns:
      The whole, and the part of it that is jax's own: the call of the compiled program, which hands its arrays to XLA.
    """
    model = spec.kwargs["model"]
    narrow = {"layers": layers, "width": 8 * model.kwargs.get("heads", 1)}
    changed = {
        "model": Spec("model", model.name, FrozenDict({**model.kwargs, **narrow})),
        "steps": steps,
        "stop_at": None,
        "seq_len": 8,
        "steps_per_dispatch": 1,
        "log_every": 10,
        "evaluators": (),
        "writers": (),
        "hooks": (Spec("hook", "step_clock", FrozenDict()),),
    }
    resolved = Resolved(replace(spec, kwargs=FrozenDict({**spec.kwargs, **changed})))
    with tempfile.TemporaryDirectory() as folder:
        train(resolved, Path(folder) / "run")
        seconds = [float(line) for line in (Path(folder) / "run" / "step_clock.txt").read_text().split()]
    return (seconds[-1] - seconds[steps // 2 - 1]) / (steps - steps // 2), _call_seconds(Program(resolved), steps)


def _call_seconds(program: Program, steps: int) -> float:
    """Seconds that the calling thread computes in a call of the compiled step."""
    dispatch, state, before = program.compile_dispatch(), program.init_state(), None
    batch = program.partitioner.place(program.data.train.batch(0))
    seconds = 0.0
    for _ in range(steps):
        start = time.thread_time()
        state, metrics = dispatch.call(state, batch)
        seconds += time.thread_time() - start
        jax.block_until_ready(before)  # as in a run, one step waits while another is computed
        before = metrics
    return seconds / steps


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)


def named_speeds(contestants: Sequence[Contestant], tokens: float) -> Mapping[str, tuple[float, float, float]]:
    """Tokens per second of each contestant by name: median, least and greatest over the rounds."""
    return {contestant.name: spread(contestant.speeds(tokens)) for contestant in contestants}
