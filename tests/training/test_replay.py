import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError, NonFiniteError
from lmlab.training.loop import train
from lmlab.training.replay import replay, state_before
from lmlab.training.run import Run
from tests.training.conftest import assert_same_arrays

BAD = "experiment.loss = @log_of_zero; log_of_zero.first = 5; finite_guard.patience = 4"


@pytest.fixture
def stopped(tiny):
    """A run that stopped at step 9, where every update from step 5 on was skipped."""
    with pytest.raises(NonFiniteError):
        train(tiny(BAD, "experiment.partitioner = @pmap; experiment.microbatches = 1"), "run")
    return "run"


def test_replay_names_the_operation_and_the_line_of_the_loss(stopped):
    found = replay(stopped, 5)
    assert not found.finite
    assert (found.fault.first.primitive, found.fault.first.kind) == ("log", "inf")
    line = int(found.fault.first.place.split("bigram_plugin.py:")[1].split(":")[0])
    from tests.training.conftest import PLUGIN

    with open(PLUGIN) as file:  # noqa: PTH123
        assert "# the fault" in file.read().split("\n")[line - 1]
    assert "first operation at fault: log gives inf, at" in found.text()
    assert f"rows {', '.join(map(str, Run(stopped).program.data.train.rows_of(5)))} of" in found.text()


def test_a_step_that_was_good_is_found_finite_with_the_loss_that_was_recorded(tiny):
    run = train(tiny("experiment.log_every = 1; checkpoints.every = 5"), "run")
    found = replay("run", 7)
    assert found.finite
    assert found.loss == pytest.approx(run.metrics()[7]["loss"], rel=1e-5)
    assert "finite on one device" in found.text()


def test_the_state_before_a_step_is_the_saved_one_or_trained_forward_to(tiny):
    train(tiny("checkpoints.every = 4; checkpoints.keep_last = 9"), "run")
    saved = state_before(Run("run"), 8)
    train(tiny("experiment.stop_at = 7"), "other")
    forward = state_before(Run("run"), 7)
    assert (int(saved.step), int(forward.step)) == (8, 7)
    assert_same_arrays(forward, Run("other").state)


def test_the_state_of_a_run_that_gave_up_serves_every_step_of_its_last_row(stopped, monkeypatch):
    from lmlab.training.program import Program

    monkeypatch.setattr(Program, "compile_step", lambda self: pytest.fail("trained"))
    for step in (5, 8):
        assert int(state_before_on_one_device(stopped, step).step) == step


def state_before_on_one_device(folder, step):
    from lmlab.parallel.mesh import Mesh
    from lmlab.training.program import Program

    run = Run(folder)
    run.program = Program(run.resolved, partitioner=Mesh(data=1))
    return state_before(run, step)


def test_a_parameter_that_is_not_finite_already_is_said_to_be(tiny, monkeypatch):
    run = train(tiny(), "run")
    spoilt = run.state._replace(params={path: jnp.full_like(x, np.nan) for path, x in run.state.params.items()})
    monkeypatch.setattr("lmlab.training.replay.state_before", lambda run, step: spoilt)
    assert "a parameter or the batch was not finite already" in replay("run", 3).text()


def test_a_step_that_the_run_does_not_have_is_refused(tiny):
    train(tiny(), "run")
    with pytest.raises(ConfigError, match="run has the steps 0 to 11, not 12"):
        replay("run", 12)
