"""`train`: from a resolved configuration to a run folder; the same call again goes on where the last one ended."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax

from lmlab.config import Resolved, build, spec_from_json
from lmlab.data import compare_fingerprints
from lmlab.errors import CheckpointError, ConfigError, DataError, Interrupted
from lmlab.training.checkpoint import Checkpoints, Note
from lmlab.training.environment import describe_environment
from lmlab.training.files import writing
from lmlab.training.init_from import PREFIX, load_params
from lmlab.training.metrics_file import MetricsFile, Position
from lmlab.training.processes import meet
from lmlab.training.program import Program
from lmlab.training.run import Run
from lmlab.training.run_folder import RunFolder, differences, keep_old
from lmlab.training.session import Progress, Session
from lmlab.training.signals import StopRequested, StopSignals
from lmlab.training.starting import with_params
from lmlab.training.state import State
from lmlab.training.teacher import check_teacher, load_teacher

RUNS = Path("runs")
"""Where run folders are, in the working directory, unless `run` says otherwise."""


def train(
    resolved: Resolved,
    run: str | Path | None = None,
    *,
    fresh: bool = False,
    from_step: int | None = None,
    stop: StopSignals | None = None,
    make: Callable[..., Program] = Program,
) -> Run:
    """Trains to the end, going on from the newest checkpoint in the run folder if there is one.

    Args:
      resolved: the configuration.
      run: the run folder; None: `runs/<name of the first gin file>`.
      fresh: begin anew; a run that is there already keeps its files under another name.
      from_step: go on from this checkpoint, not the newest; later ones are moved to `set_aside/`.
      stop: signals that are being listened to already; None: SIGTERM and SIGINT are listened to meanwhile.
      make: makes the program, as `Program` does.

    Raises:
      ConfigError: the configuration cannot run, or the folder holds a run of another configuration.
      Interrupted: a signal came; the state is saved.
      LmlabError: data, checkpoints, disk or numbers fail; what was saved stays.
    """
    folder = RunFolder(default_folder(resolved) if run is None else Path(run))
    with ExitStack() as held:
        listening = held.enter_context(StopSignals() if stop is None else nullcontext(stop))
        session = begin(resolved, folder, listening, held, fresh=fresh, from_step=from_step, make=make)
        if session is None:
            return Run(folder.path)
        session.go()
        session.run.state = session.state  # no need to read it again
        return session.run


def begin(
    resolved: Resolved,
    folder: RunFolder,
    stop: StopSignals,
    held: ExitStack,
    *,
    fresh: bool = False,
    from_step: int | None = None,
    until: int | None = None,
    make: Callable[..., Program] = Program,
) -> Session | None:
    """The session of a run before its first step; None where there is nothing left to do.

    Args:
      resolved, folder, fresh, from_step, make: see `train`.
      until: leave the run at this step, as experiment.stop_at does, which is not written into its configuration.
      stop: the signals to listen to.
      held: closes the folder and its files when the session is over.

    Raises:
      as `train`.
    """
    try:
        with stop.interruptible():
            session = _start(resolved, folder, fresh, from_step, until, stop, held, make)
    except StopRequested:
        raise Interrupted(
            f"{stop.requested or 'a signal'} stopped the run before its first step; what was saved before is safe. "
            f"The same command starts again: {folder.path}."
        ) from None
    if session is not None and until is not None:
        session.end = min(session.end, until)
    return session


def default_folder(resolved: Resolved) -> Path:
    """`runs/<name>` after the first gin file."""
    if not resolved.files:
        raise ConfigError("a run without a gin file has no name: choose its folder with --run DIR.")
    return RUNS / Path(resolved.files[0]).stem


def say(text: str) -> None:
    """One line for the person who watches, from the first process only."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def _start(
    resolved: Resolved,
    folder: RunFolder,
    fresh: bool,
    from_step: int | None,
    until: int | None,
    stop: StopSignals,
    held: ExitStack,
    make: Callable[..., Program],
) -> Session | None:
    """Everything before the first step; None where there is nothing left to do."""
    first = jax.process_index() == 0
    if fresh and first:
        _make_way(folder)
    meet("the folder is ready to be looked at")
    resuming = folder.exists()
    if resuming:
        folder.refuse_another(resolved.spec)
        if from_step is None and _nothing_left(folder, resolved, until):
            return None
    elif from_step is not None:
        raise CheckpointError(f"--from-step {from_step}: there is no run in {folder.path}.")
    program = make(resolved, saved_tokenizer=folder.saved_tokenizer() if resuming else None)
    program.check_learns()
    if first:
        held.enter_context(folder.locked())
        if from_step is not None:
            _go_back(folder, from_step)
        _write_files(folder, resolved, program)
    meet("the folder is written")
    run = Run(folder.path, program)
    frozen = [f"{PREFIX}{path}" for path in program.frozen]
    checkpoints = Checkpoints(folder.checkpoints, program.checkpoints, frozen)
    held.callback(checkpoints.close)
    steps = checkpoints.steps()
    note = checkpoints.note(steps[-1]) if steps else None
    if note is not None:
        _check_note(folder, program, note)
    metrics = MetricsFile(folder.metrics, note.metrics if note else Position()) if first else None
    if metrics is not None:
        held.callback(metrics.close)
    if note is None:
        check_teacher(program)
    dispatch = stop.wait_for(program.compile_dispatch)
    _tell_of_data(program)
    if note is None:
        state, progress = stop.wait_for(_first_state, program), Progress()
    else:
        state, progress = stop.wait_for(_restored, program, checkpoints, note), Progress.of(note)
        say(f"{folder.path}: going on from step {note.step}")
    return Session(run, state, progress, dispatch, checkpoints, metrics, stop)


def _tell_of_data(program: Program) -> None:
    """Says what happened to examples on their way to rows (the fingerprint in each checkpoint holds it too)."""
    train = program.data.train
    happened = {name: value for name, value in train.notes.items() if not name.endswith("padding")}
    happened |= {f"rows of {name}": count for name, count in train.realised(program.experiment.steps).items()}
    if happened:
        say(f"{program.data.name}, training split: " + ", ".join(f"{k} {v:g}" for k, v in happened.items()))


def _make_way(folder: RunFolder) -> None:
    if folder.path.exists():
        with folder.locked():  # nobody is at work there
            pass
        say(f"{folder.path}: the old run is kept as {keep_old(folder.path)}")


def _nothing_left(folder: RunFolder, resolved: Resolved, until: int | None) -> bool:
    status = folder.status()
    step, steps, stop_at = status.get("step", 0), resolved.spec.kwargs["steps"], resolved.spec.kwargs["stop_at"]
    if until is not None and step >= until:
        return True
    if status.get("state") == "finished":
        say(f"{folder.path}: this run is finished (step {step} of {steps}). To run it again: --fresh, or --run DIR")
        return True
    if status.get("state") == "stopped" and stop_at is not None and step >= stop_at:
        say(f"{folder.path}: this run is at step {step}, where experiment.stop_at leaves it (of {steps})")
        return True
    return False


def _go_back(folder: RunFolder, step: int) -> None:
    """Moves what lies behind `step` aside: the later checkpoints, and a copy of the metrics."""
    checkpoints = Checkpoints(folder.checkpoints)
    try:
        checkpoints.note(step)  # is there and whole
        later = [folder.checkpoints / str(other) for other in checkpoints.steps() if other > step]
    finally:
        checkpoints.close()
    if later:
        target = folder.set_aside(later)
        if folder.metrics.exists():
            with writing(target):
                shutil.copy2(folder.metrics, target)
        say(f"{folder.path}: {len(later)} later checkpoints and a copy of the metrics were moved to {target}")


def _write_files(folder: RunFolder, resolved: Resolved, program: Program) -> None:
    folder.write_config(resolved)
    folder.write_environment(describe_environment())
    if program.tokenizer is not None:
        folder.write_tokenizer(program.tokenizer.to_json())
    with writing(folder.samples):
        folder.samples.mkdir(exist_ok=True)


def _check_note(folder: RunFolder, program: Program, note: Note) -> None:
    """Refuses a checkpoint of other data, of another configuration, or between two steps of a dispatch."""
    # A state whose parameters were brought from elsewhere has read no data yet, and names none.
    changed = note.fingerprint and compare_fingerprints(note.fingerprint, program.data.train.fingerprint())
    if changed:
        raise DataError(
            f"the data is not what {folder.path} was trained on until step {note.step}:\n{changed}\n"
            "Put the old data back, or start another run with --run DIR."
        )
    found = differences(spec_from_json(note.spec), program.spec)
    if found:
        raise ConfigError(f"the checkpoint of step {note.step} in {folder.path} is of another configuration:\n{found}")
    together = program.experiment.steps_per_dispatch
    if note.step % together:
        raise ConfigError(
            f"experiment.steps_per_dispatch = {together} does not divide {note.step}, the step that {folder.path} is "
            "saved at. Choose one that does."
        )


def _restored(program: Program, checkpoints: Checkpoints, note: Note) -> State:
    return program.partitioner.load(checkpoints.restore(note.step, program.abstract_state))


def _first_state(program: Program) -> State:
    """The state before the first step, with other runs' parameters where `init_from` or a teacher bring them."""
    state = program.init_state()
    target: Any = program.abstract_state.params  # ShapeDtypeStructs
    found = load_teacher(program, target)
    if program.experiment.init_from is not None:
        settings = build(program.experiment.init_from)
        own = {path: shape for path, shape in target.items() if path not in program.taught_by}
        positions = [path for path, role in program.model.roles.items() if role == "position" and path in own]
        params, plan = load_params(settings, own, positions)
        say(plan.report(settings.run))
        found |= params
    return with_params(program, state, found) if found else state
