"""A signal in every phase of a run: the state is saved, and going on gives what an uninterrupted run gives."""

import os
import signal
import threading
from pathlib import Path

import pytest

from lmlab.data.loader import TrainBatches
from lmlab.errors import DataError, Interrupted
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.loop import train
from lmlab.training.program import Program
from lmlab.training.run import Run
from lmlab.training.session import Session
from tests.later import later
from tests.training.conftest import assert_same_arrays, without_timing

HOW = "experiment.eval_every = 4; experiment.evaluators = [@perplexity]; perplexity.batches = 1; checkpoints.every = 5"
FOREVER = threading.Event()


def sends(number, then, when=lambda *args: True, forever=False, pause=0.0):
    """`then`, after a pause and a signal when `when(*args)`; `forever`: it then does not return."""

    def called(*args, **kwargs):
        if when(*args):
            FOREVER.wait(pause)
            os.kill(os.getpid(), number)
            FOREVER.wait(600 if forever else 0)
        return then(*args, **kwargs)

    return called


def at_step(step):
    return lambda session, *args: session.progress.step == step


PHASES = {
    "training": (Session, "_dispatch", at_step(6), {}, 7),
    "evaluation": (Session, "_evaluate", at_step(8), {"forever": True}, 8),
    "saving": (Checkpoints, "save", lambda checkpoints, state, note: note.step == 5, {}, 5),
    "hooks": (Session, "_call_hooks", at_step(7), {}, 7),
    "waiting for data": (TrainBatches, "batch", lambda batches, k, *rows: k == 9, {"forever": True, "pause": 1.0}, 9),
}
BOTH = [(phase, signal.SIGTERM) for phase in PHASES] + [
    ("training", signal.SIGINT),
    ("waiting for data", signal.SIGINT),
]
NOW = [("training", signal.SIGTERM), ("evaluation", signal.SIGTERM), ("waiting for data", signal.SIGINT)]


@pytest.mark.parametrize(("phase", "number"), [*NOW, *later(one for one in BOTH if one not in NOW)])
def test_a_signal_saves_the_state_and_nothing_is_lost(tiny, phase, number, monkeypatch):
    owner, name, when, how, saved = PHASES[phase]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, sends(number, getattr(owner, name), when, **how))
        with pytest.raises(Interrupted, match=f"{number.name} stopped the run at step {saved} of 12"):
            train(tiny(HOW, "experiment.prefetch = 1"), "run")
    run = Run("run")
    assert (run.status, run.step, run.steps()[-1]) == ("interrupted", saved, saved)
    run = train(tiny(HOW), "run")
    whole = train(tiny(HOW), "whole")
    assert without_timing(run.metrics()) == without_timing(whole.metrics())
    assert_same_arrays(run.state, whole.state)


@pytest.mark.parametrize("phase", ["compile_dispatch", "init_state"])
def test_a_signal_while_compiling_leaves_at_once_and_loses_nothing(tiny, phase, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Program, phase, sends(signal.SIGTERM, getattr(Program, phase), forever=True))
        with pytest.raises(Interrupted, match="stopped the run before its first step"):
            train(tiny(), "run")
    assert train(tiny(), "run").status == "finished"


def test_a_signal_while_restoring_loses_nothing(tiny, monkeypatch):
    train(tiny("experiment.stop_at = 6"), "run")
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "restore", sends(signal.SIGTERM, Checkpoints.restore, forever=True))
        with pytest.raises(Interrupted):
            train(tiny(), "run")
    assert train(tiny(), "run").metrics()[1]["step"] == 6
    assert Path("run/checkpoints/6").exists() or Path("run/checkpoints/12").exists()


def test_a_loader_that_dies_is_an_error_and_the_state_is_saved(tiny, monkeypatch):
    batch = TrainBatches.batch

    def dies(self, k, rows=None):
        if k == 8:
            raise SystemExit
        return batch(self, k, rows)

    with monkeypatch.context() as patched:
        patched.setattr(TrainBatches, "batch", dies)
        with pytest.raises(DataError, match="the loader thread died before it made batch 8"):
            train(tiny(), "run")
    run = Run("run")
    assert (run.status, run.steps()) == ("failed", [8])
    assert "loader thread died" in run.files.status()["message"]
    assert without_timing(train(tiny(), "run").metrics()) == without_timing(train(tiny(), "whole").metrics())
