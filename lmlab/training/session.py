"""One session of a run: evaluate, save, next batch, step, hooks; in this order, to the end or until asked to stop.

A run is a pure function of its configuration. What a session must know beyond the state stands in the checkpoint's
note, so that a run that was killed writes the same metrics.jsonl, and ends at the same bits, as one that was not.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any

import jax

from lmlab.config import build, spec_to_json
from lmlab.contracts import OpenWriter
from lmlab.errors import ConfigError, Interrupted, LmlabError, NonFiniteError
from lmlab.training.checkpoint import Checkpoints, Note
from lmlab.training.interval import Interval, Stopwatch
from lmlab.training.metrics_file import MetricsFile, Position
from lmlab.training.processes import agreed
from lmlab.training.program import Dispatch
from lmlab.training.run import Run
from lmlab.training.run_folder import RunState
from lmlab.training.signals import StopRequested, StopSignals
from lmlab.training.state import State

MOST_IN_FLIGHT = 8
LONGEST_IN_FLIGHT = 1.0
"""Dispatches that may wait for the device, and seconds that the oldest of several may: enough to keep the device
busy, and little enough that a run that is asked to stop can stop."""

SECONDS_BETWEEN_STATUSES = 1.0

Evaluation = Callable[[State], Mapping[str, float]]

Held = State | Callable[[], State]
"""A state, or what makes it when it is asked for: the one of a run that is stepped together with others."""


@dataclasses.dataclass
class Progress:
    """Where a session stands; what a checkpoint's note is made of.

    Attributes:
      step: optimizer steps done.
      saved: the step of the newest checkpoint (-1: none).
      evaluated: the last step at which the evaluators ran (-1: never).
      hooked: the last step after which the hooks ran (-1: never).
      score: the value that `keep_best` orders by, measured at `evaluated`.
      interval: what happened since the last record.
    """

    step: int = 0
    saved: int = -1
    evaluated: int = -1
    hooked: int = 0
    score: float | None = None
    interval: Interval = dataclasses.field(default_factory=Interval)

    @classmethod
    def of(cls, note: Note) -> Progress:
        """Where the checkpoint with this note stood."""
        interval = Interval(**note.interval)
        return cls(note.step, note.step, note.evaluated, note.hooked, note.score, interval)


class Session:
    """One session of a run: from a state at a step to the end, or to where it is stopped.

    Several sessions can take turns in one process: see `turns`.

    Args:
      run: the run, its folder made.
      state: the state to go on from, in the partitioner's layout; the session uses it up.
      progress: where that state stands.
      dispatch: the compiled step or steps.
      checkpoints, metrics: where states and records go (`metrics` is None except in the first process).
      stop: the signals to listen to.
    """

    def __init__(
        self,
        run: Run,
        state: State,
        progress: Progress,
        dispatch: Dispatch,
        checkpoints: Checkpoints,
        metrics: MetricsFile | None,
        stop: StopSignals,
    ) -> None:
        self.run = run
        self._held: Held = state
        self.progress = progress
        self.dispatch = dispatch
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.stop = stop
        self.program = run.program
        self.experiment = run.program.experiment
        self.end = self.experiment.stop_at or self.experiment.steps
        self.evaluations: list[Evaluation] = [build(spec).bind(self.program) for spec in self.experiment.evaluators]
        self.hooks = [build(spec).bind(run) for spec in self.experiment.hooks]
        self.writers: list[OpenWriter] = []
        self.fingerprint = run.program.data.train.fingerprint()
        self._pending: deque[tuple[int, Any]] = deque()
        self._in_flight: deque[tuple[float, Any]] = deque()
        self._intact = True
        self._stopping = False
        self._stopwatch = Stopwatch()
        self._began_at = progress.step
        self._last_save = self._last_status = time.monotonic()

    @property
    def state(self) -> State:
        """Where the run stands."""
        if not isinstance(self._held, State):
            self._held = self._held()
        return self._held

    def go(self) -> None:
        """Trains to the end, or until a signal comes; the state is saved either way.

        Raises:
          as `turns`.
        """
        for _ in self.turns():
            pass

    def turns(self) -> Iterator[Mapping[str, Any]]:
        """Does what `go` does, in pieces: stops before each dispatch, with the batch that it will read.

        What the dispatch then gives as the new state may be a function that makes it, for who steps many runs at once.

        Raises:
          Interrupted: a signal came.
          NonFiniteError: too many updates in a row were not finite.
          LmlabError: data, disk or configuration fail; what was saved stays.
        """
        try:
            with ExitStack() as closing:
                self._open_writers(closing)
                batches = self._batches()
                closing.callback(self._close_batches, batches)
                yield from self._loop(batches)
            self.checkpoints.wait()
        except StopRequested:
            self._stopping = True
        except Exception as error:
            self._rescue(error)
            raise
        if self._stopping:
            self._save_for_later()
            self._write_status("interrupted")
            raise Interrupted(self._interrupted_text())
        self._write_status("finished" if self.progress.step == self.experiment.steps else "stopped")

    # --- The fixed order --------------------------------------------------------------------------------------

    def _loop(self, batches: Any) -> Iterator[Mapping[str, Any]]:
        self._call_hooks()  # those that a signal kept from running before the state was saved
        self._stopwatch = Stopwatch()
        while True:
            self._evaluate_if_due()
            self._save_if_due()
            if self.progress.step >= self.end or self._asked_to_stop():
                return
            with self._stopwatch.waiting(), self._interruptible():
                batch = next(batches)
            yield batch
            self._dispatch(batch)
            self._record_if_due()
            self._call_hooks()

    def _dispatch(self, batch: Any) -> None:
        self._intact = False  # from here the old state is given up, until the new one is assigned
        with jax.transfer_guard("disallow"):
            self._held, metrics = self.dispatch.call(self._held, batch)
        self._intact = True
        self._pending.append((self.progress.step, metrics))
        self.progress.step += self.experiment.steps_per_dispatch
        self._in_flight.append((time.monotonic(), metrics))
        while len(self._in_flight) > 2 and (
            len(self._in_flight) > MOST_IN_FLIGHT or time.monotonic() - self._in_flight[0][0] > LONGEST_IN_FLIGHT
        ):
            jax.block_until_ready(self._in_flight.popleft()[1])

    def _evaluate_if_due(self) -> None:
        step, every = self.progress.step, self.experiment.eval_every
        due = step == self.experiment.steps or (every and step and step % every == 0) or step in self.experiment.eval_at
        if not due or self.progress.evaluated == step or not self.evaluations:
            return
        with self._stopwatch.paused():
            start = time.perf_counter()
            # In a thread, so that a signal does not have to wait for it; what it holds of the state it only reads.
            together = jax.process_count() > 1  # several processes evaluate together, and stop together later
            found = self._evaluate(self.state) if together else self.stop.wait_for(self._evaluate, self.state)
            timing = {"time": time.time(), "seconds": time.perf_counter() - start}
        self._write({"step": step, "phase": "eval", **found, "timing": timing})
        self.progress.evaluated = step
        self.progress.score = self._score(found)

    def _save_if_due(self) -> None:
        policy, step = self.program.checkpoints, self.progress.step
        due = (policy.every and step and step % policy.every == 0) or step == self.end
        if policy.minutes and step % self.experiment.log_every == 0:
            late = time.monotonic() - self._last_save > 60 * policy.minutes
            due = agreed(late) or due
        if due:
            with self._stopwatch.paused():
                self._save()

    def _record_if_due(self) -> None:
        step = self.progress.step
        if step % self.experiment.log_every and step != self.experiment.steps:
            return
        self._fetch()
        interval = self.progress.interval
        tokens = interval.steps * self.program.data.train.tokens_per_step
        timing = self._stopwatch.read(interval.steps, tokens)
        self._write({"step": step, "phase": "train", **interval.record(), "timing": timing})
        failed_at = interval.longest_row_from if interval.longest_row >= self.program.finite_guard.patience else None
        interval.begin_anew()
        if failed_at is not None:
            self._give_up(failed_at)
        if time.monotonic() - self._last_status > SECONDS_BETWEEN_STATUSES:
            self._write_status("running")

    def _call_hooks(self) -> None:
        step = self.progress.step
        if self.progress.hooked == step:
            return
        with self._stopwatch.paused(), self._interruptible():
            for hook in self.hooks:
                hook(step, self.state, step >= self.end)
        self.progress.hooked = step

    # --- What these are made of -------------------------------------------------------------------------------

    def _evaluate(self, state: State) -> dict[str, float]:
        found: dict[str, float] = {}
        for evaluation in self.evaluations:
            found.update(evaluation(state))
        return found

    def _score(self, found: Mapping[str, float]) -> float | None:
        policy = self.program.checkpoints
        if policy.keep_best and policy.metric not in found:
            raise ConfigError(
                f"checkpoints.metric = '{policy.metric}', which no evaluator reports. They report: "
                f"{', '.join(sorted(found)) or 'nothing'}."
            )
        return found.get(policy.metric)

    def _fetch(self) -> None:
        """Brings the metrics of the steps since the last fetch to the host, and adds them in order."""
        pending = list(self._pending)
        for (step, _), metrics in zip(pending, jax.device_get([metrics for _, metrics in pending]), strict=True):
            self.progress.interval.add(step, self.dispatch.names, metrics)
        self._pending.clear()
        self._in_flight.clear()

    def _save(self) -> None:
        progress = self.progress
        if progress.saved == progress.step:
            return
        self._fetch()
        note = Note(
            step=progress.step,
            fingerprint=self.fingerprint,
            metrics=self.metrics.position() if self.metrics else Position(),
            evaluated=progress.evaluated,
            hooked=progress.hooked,
            interval=dataclasses.asdict(progress.interval),
            score=progress.score if progress.evaluated == progress.step else None,
            spec=spec_to_json(self.program.spec),
        )
        self.checkpoints.save(self.program.partitioner.export(self.state), note)
        progress.saved = progress.step
        self._last_save = time.monotonic()

    def _save_for_later(self) -> None:
        self._save()
        self.checkpoints.wait()

    def _give_up(self, step: int) -> None:
        """Saves the state and raises NonFiniteError for the row of skipped updates that began with `step`."""
        self._save_for_later()
        rows = ", ".join(map(str, self.program.data.train.rows_of(step)))
        patience = self.program.finite_guard.patience
        raise NonFiniteError(
            f"the loss or its gradient was not finite in {patience} steps in a row, from step {step} on, which reads "
            f"the rows {rows} of the training split. The updates were skipped, and the state is saved. To see the "
            f"first operation at fault: lmlab replay {self.run.folder} {step}"
        )

    def _rescue(self, error: Exception) -> None:
        """After a failure: saves the state if it is whole, and says in status.json what happened."""
        if self._intact and self.progress.step > self._began_at and not isinstance(error, NonFiniteError):
            # The first error is the one to report: the disk that it may be about fails here again.
            with suppress(LmlabError):
                self._save_for_later()
        with suppress(LmlabError):
            self._write_status("failed", str(error))

    # --- Around the loop --------------------------------------------------------------------------------------

    def _asked_to_stop(self) -> bool:
        several = jax.process_count() > 1
        if several and self.progress.step % self.experiment.log_every:
            return False  # all processes stop at the same step: they agree on it where they synchronise anyway
        self._stopping = agreed(self.stop.requested is not None)
        return self._stopping

    def _interruptible(self) -> AbstractContextManager[None]:
        return self.stop.interruptible() if jax.process_count() == 1 else nullcontext()

    def _batches(self) -> Any:
        experiment, partitioner = self.experiment, self.program.partitioner
        return self.program.data.train.iterate(
            self.progress.step,
            partitioner.rows(experiment.global_batch_size),
            experiment.prefetch,
            lambda batch: partitioner.place(batch, self.program.leading),
            group=experiment.steps_per_dispatch,
            stop=self.end,
        )

    def _close_batches(self, batches: Any) -> None:
        if self.stop.requested is None or jax.process_count() > 1:
            batches.close()
        else:  # a loader that hangs must not use up the grace time: its thread is left behind
            self.stop.abandoned = True

    def _open_writers(self, closing: ExitStack) -> None:
        if jax.process_index() != 0:
            return
        for spec in self.experiment.writers:
            writer = build(spec).bind(self.run.folder, self.program.spec)
            closing.callback(writer.close)
            self.writers.append(writer)
        self._write_status("running")

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.metrics is None:
            return
        self.metrics.append(record)
        for writer in self.writers:
            writer.write(record)

    def _write_status(self, state: RunState, message: str | None = None) -> None:
        if jax.process_index() == 0:
            self.run.files.write_status(state, self.progress.step, self.experiment.steps, message)
        self._last_status = time.monotonic()

    def _interrupted_text(self) -> str:
        return (
            f"{self.stop.requested or 'a signal'} stopped the run at step {self.progress.step} of "
            f"{self.experiment.steps}; it is saved in {self.run.folder}. The same command goes on from there."
        )
