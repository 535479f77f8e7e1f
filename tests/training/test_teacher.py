"""A teacher's parameters: read from its run, used, never changed, and part of the student's own checkpoints."""

import shutil

import jax
import numpy as np
import pytest

from lmlab.errors import ConfigError, RunFolderError
from lmlab.training.loop import train
from lmlab.training.program import Program
from lmlab.training.teacher import check_teacher
from tests.training.conftest import assert_same_arrays, without_timing, write_documents

STUDENT = (
    "experiment.loss = @distillation",
    "distillation.teacher = @teacher/bigram",
    "teacher/bigram.dropout = 0.25",
    "distillation.run = 'teacher'",
    "distillation.alpha = 1.0",
    "experiment.steps = 120",
    "checkpoints.every = 60",
    "adamw.learning_rate = 0.05",
    "adamw.weight_decay = 0.0",
    "bigram.dropout = 0.0",
    "experiment.ema = 0.5",
    "experiment.seed = 7",
)


def exported(run):
    return jax.device_get(run.program.partitioner.export(run.state))


def test_a_student_comes_near_its_teacher_which_stays_as_it_is_and_is_needed_no_more(tiny, folder):
    teacher = train(tiny("adamw.learning_rate = 0.3", "experiment.ema = 0.5"), "teacher")
    taught = {f"teacher/{path}": np.asarray(value) for path, value in teacher.params.items()}
    whole = train(tiny(*STUDENT), "student")
    state = exported(whole)
    assert_same_arrays({path: state.params[path] for path in taught}, taught)
    assert_same_arrays({path: whole.params[path] for path in taught}, taught)

    own = {"embedding", "head"}
    moments = jax.tree_util.tree_flatten_with_path(state.opt_state["update"])[0]
    found = {str(key.key) for path, leaf in moments for key in path if isinstance(key, jax.tree_util.DictKey)}
    assert found == own and set(state.opt_state["ema"]) == own

    kl = [record["kl"] for record in whole.metrics() if record["phase"] == "train"]
    assert kl[-1] < 0.1 * kl[0], kl

    shutil.copytree("student", "again")
    shutil.rmtree("teacher")
    again = train(tiny(*STUDENT), "again", from_step=60)
    assert_same_arrays(exported(again), state)
    assert without_timing(again.metrics()) == without_timing(whole.metrics())


def test_a_teacher_of_another_model_or_other_ids_is_refused_before_anything_is_compiled(tiny, folder):
    train(tiny("experiment.steps = 3", "bigram.dropout = 0.5"), "teacher")
    with pytest.raises(
        ConfigError, match=r"of another model than distillation\.teacher:\n  dropout: 0\.5 there, 0\.25"
    ):
        check_teacher(Program(tiny(*STUDENT)))
    write_documents(folder)
    texts = ("experiment.dataset = @text_files", "text_files.train = 'text/*.txt'", "experiment.tokenizer = @bytes")
    fits = [line.replace("0.25", "0.5") for line in STUDENT]
    with pytest.raises(ConfigError, match=r"distillation\.run = 'teacher' has no tokenizer: a student must read"):
        check_teacher(Program(tiny(*fits, *texts)))
    check_teacher(Program(tiny(*fits)))
    with pytest.raises(RunFolderError, match="nowhere is no run folder"):
        check_teacher(Program(tiny(*fits, "distillation.run = 'nowhere'")))
