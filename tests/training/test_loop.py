import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.errors import CheckpointError, ConfigError, DataError, LmlabError, NonFiniteError, RunFolderError
from lmlab.losses.autoregressive import Autoregressive
from lmlab.training.loop import train
from lmlab.training.run import Run
from lmlab.training.session import Session
from tests.later import later
from tests.training.conftest import assert_same_arrays, without_timing, write_documents

DOCUMENTS = "experiment.dataset = @text_files; experiment.tokenizer = @characters; text_files.train = 'text/*.txt'"

CARRIED = (
    "experiment.model = @elman; elman.width = 5; experiment.packing = 'contiguous'; autoregressive.carry = True; "
    "experiment.evaluators = [@perplexity]; perplexity.batches = 2; experiment.eval_every = 6"
)


def steps_of(run, phase="train"):
    return [record["step"] for record in run.metrics() if record["phase"] == phase]


# --- Resumption as a law --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        "",  # an epoch's edge lies between the two sessions' ends
        "experiment.log_every = 5",  # stopped in the middle of an interval of the metrics
        "experiment.steps_per_dispatch = 3",
        "experiment.ema = 0.9; experiment.evaluators = [@perplexity]; experiment.eval_at = [2, 6]",
        f"{CARRIED}; experiment.partitioner = @pmap",
        *later(
            [
                "experiment.microbatches = 2; mesh.data = 4",
                "experiment.partitioner = @pmap",
                f"experiment.packing = 'first_fit'; {DOCUMENTS}",
                f"{CARRIED}; experiment.steps_per_dispatch = 3",
                "experiment.optimizer = @adafactor; adafactor.learning_rate = @cosine; cosine.peak = 0.01",
            ]
        ),
    ],
)
def test_n_steps_and_n_more_are_2n_steps_to_the_bit(tiny, folder, how):
    if "text_files" in how:
        write_documents(folder)
    whole = train(tiny(how), "whole")
    parts = train(tiny(how, "experiment.stop_at = 6"), "parts")
    assert (parts.status, parts.step) == ("stopped", 6)
    parts = train(tiny(how), "parts")
    assert (parts.status, parts.step) == ("finished", 12)
    assert without_timing(parts.metrics()) == without_timing(whole.metrics())
    assert_same_arrays(Run("parts").state, Run("whole").state)
    assert_same_arrays(parts.state, whole.state)


@pytest.mark.parametrize("how", ["", "experiment.steps_per_dispatch = 3", "experiment.partitioner = @pmap"])
def test_a_whole_run_traces_its_two_programs_once(tiny, monkeypatch, how):
    traced_for = []
    compute = Autoregressive.__call__

    def call(self, model, batch, keys, step):
        traced_for.append("evaluation" if keys is None else "training")
        return compute(self, model, batch, keys, step)

    monkeypatch.setattr(Autoregressive, "__call__", call)
    train(tiny(how, "experiment.evaluators = [@perplexity]; experiment.eval_every = 6; checkpoints.every = 3"), "run")
    assert traced_for == ["training", "evaluation"]


def test_the_schedule_ends_at_steps_and_not_where_the_session_stops(tiny):
    how = "experiment.optimizer = @sgd; sgd.learning_rate = @linear; linear.peak = 0.1; experiment.log_every = 1"
    train(tiny(how, "experiment.stop_at = 4"), "run")
    run = train(tiny(how), "run")
    rates = [record["learning_rate"] for record in run.metrics()]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 12


def test_a_run_goes_on_on_another_number_of_devices(tiny):
    one = train(tiny(), "one")
    train(tiny("mesh.data = 8", "experiment.stop_at = 6"), "run")
    run = train(tiny("experiment.partitioner = @pmap", "pmap.devices = 4"), "run")
    for path, value in one.params.items():
        np.testing.assert_allclose(run.params[path], value, atol=1e-5)
    assert steps_of(run) == [3, 6, 9, 12]


def test_the_same_command_after_the_end_changes_nothing(tiny, capfd):
    train(tiny(), "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    run = train(tiny(), "run")
    assert run.status == "finished"
    assert "this run is finished (step 12 of 12)" in capfd.readouterr().err
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_a_run_that_was_stopped_on_purpose_stays_there_until_told_otherwise(tiny, capfd):
    train(tiny("experiment.stop_at = 6"), "run")
    assert train(tiny("experiment.stop_at = 6"), "run").step == 6
    assert "is at step 6, where experiment.stop_at leaves it" in capfd.readouterr().err


def test_from_step_goes_back_and_loses_nothing(tiny):
    checkpoints = "checkpoints.every = 3; checkpoints.keep_last = 9"
    whole = train(tiny(checkpoints), "run")
    records, state = whole.metrics(), whole.state
    run = train(tiny(checkpoints), "run", from_step=6)
    assert without_timing(run.metrics()) == without_timing(records)
    assert_same_arrays(run.state, state)
    aside = Path("run/set_aside/1")
    assert sorted(path.name for path in aside.iterdir()) == ["12", "9", "metrics.jsonl"]
    assert len((aside / "metrics.jsonl").read_text().splitlines()) == 4
    assert run.steps() == [3, 6, 9, 12]


def test_from_a_step_that_was_not_saved_is_refused_with_those_that_were(tiny):
    train(tiny("checkpoints.every = 6; experiment.stop_at = 9"), "run")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3\. It has: 6, 9"):
        train(tiny(), "run", from_step=3)
    assert not Path("run/set_aside").exists()


def test_fresh_keeps_the_old_run_under_another_name(tiny):
    train(tiny("experiment.stop_at = 3"), "run")
    train(tiny("experiment.seed = 5"), "run", fresh=True)
    train(tiny("experiment.seed = 6"), "run", fresh=True)
    assert [Run(name).step for name in ("run", "run.1", "run.2")] == [12, 3, 12]
    assert [Run(name).resolved.spec.kwargs["seed"] for name in ("run", "run.1", "run.2")] == [6, 0, 5]


def test_another_configuration_in_the_same_folder_is_refused_with_the_differences(tiny):
    train(tiny("experiment.stop_at = 3"), "run")
    with pytest.raises(ConfigError) as refused:
        train(tiny("adamw.learning_rate = 0.02", "bigram.width = 7"), "run")
    text = str(refused.value)
    assert "model.width: 5 there, 7 now" in text
    assert "optimizer.learning_rate: 0.01 there, 0.02 now" in text
    assert "--run" in text
    assert "--fresh" in text
    assert Run("run").step == 3


def test_changed_data_is_refused_with_the_differences(tiny, folder):
    write_documents(folder)
    train(tiny(DOCUMENTS, "experiment.stop_at = 3"), "run")
    (folder / "text" / "7.txt").write_text("abc")
    with pytest.raises(DataError, match=r"the data is not what run was trained on until step 3:\n  .*→"):
        train(tiny(DOCUMENTS), "run")


def test_a_checkpoint_of_another_run_is_refused(tiny):
    train(tiny("experiment.stop_at = 3"), "run")
    train(tiny("bigram.dropout = 0.5", "experiment.stop_at = 6"), "other")
    shutil.copytree("other/checkpoints/6", "run/checkpoints/6")
    with pytest.raises(ConfigError, match=r"of step 6 .* another configuration:\n  model.dropout: 0.5 there"):
        train(tiny(), "run")


def test_a_step_inside_a_dispatch_cannot_be_resumed_from(tiny):
    train(tiny("experiment.stop_at = 4"), "run")
    with pytest.raises(ConfigError, match="steps_per_dispatch = 3 does not divide 4"):
        train(tiny("experiment.steps_per_dispatch = 3"), "run")


# --- The order of things --------------------------------------------------------------------------------------


def test_records_evaluations_checkpoints_and_hooks_come_when_they_are_due(tiny):
    run = train(
        tiny(
            "experiment.steps = 20; experiment.log_every = 3; experiment.eval_every = 8; checkpoints.every = 5",
            "checkpoints.keep_last = 99; experiment.evaluators = [@numbers]; experiment.hooks = [@footprints]",
        ),
        "run",
    )
    assert [(r["step"], r["phase"]) for r in run.metrics()] == [
        (3, "train"), (6, "train"), (8, "eval"), (9, "train"), (12, "train"), (15, "train"), (16, "eval"),
        (18, "train"), (20, "train"), (20, "eval"),
    ]  # fmt: skip
    assert run.steps() == [5, 10, 15, 20]
    assert Path("run/footprints.txt").read_text().split("\n")[:-1] == [*map(str, range(1, 20)), "20 last"]


def test_the_best_checkpoints_by_an_evaluation_are_kept(tiny):
    run = train(
        tiny(
            "experiment.eval_every = 2; checkpoints.every = 2; checkpoints.keep_last = 1; checkpoints.keep_best = 2",
            "experiment.evaluators = [@numbers]; checkpoints.metric = 'valid/number'",
            "numbers.values = (5.0, 1.0, 4.0, 2.0, 3.0, 9.0)",
        ),
        "run",
    )
    assert run.steps() == [4, 8, 12]


def test_a_metric_that_nothing_reports_is_refused_with_those_that_are(tiny):
    best = "checkpoints.keep_best = 1; experiment.evaluators = [@numbers]; experiment.eval_every = 3"
    with pytest.raises(ConfigError, match=r"'valid/nats_per_token', which no evaluator reports. They report: valid/n"):
        train(tiny(best), "run")


def test_an_evaluation_that_was_interrupted_is_neither_lost_nor_repeated(tiny, monkeypatch):
    how = "experiment.eval_every = 4; experiment.evaluators = [@perplexity]; perplexity.batches = 1"
    whole = train(tiny(how), "whole")
    evaluate = Session._evaluate

    def fails_at_8(self, state):
        if self.progress.step == 8:
            raise RuntimeError("power cut")
        return evaluate(self, state)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_evaluate", fails_at_8)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tiny(how), "run")
    assert (Run("run").status, Run("run").steps()) == ("failed", [8])  # what was computed is saved
    assert without_timing(train(tiny(how), "run").metrics()) == without_timing(whole.metrics())


def test_the_step_is_traced_once_and_nothing_is_moved_to_the_device_unasked(tiny, monkeypatch):
    from lmlab.losses.autoregressive import Autoregressive

    calls, call = [], Autoregressive.__call__

    def counted(self, *args, **kwargs):
        calls.append(1)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Autoregressive, "__call__", counted)
    with jax.transfer_guard("disallow"):
        train(tiny("checkpoints.every = 4"), "run")
    assert len(calls) == 1


BUCKETS = "experiment.dataset = @toy_pairs; experiment.tokenizer = @bytes; experiment.buckets = [3]"


def test_with_buckets_the_step_is_compiled_once_for_each_width_and_a_run_goes_on_as_ever(tiny, monkeypatch, capsys):
    shapes, call = [], Autoregressive.__call__

    def seen(self, model, batch, *rest):
        shapes.append(batch["tokens"].shape)
        return call(self, model, batch, *rest)

    monkeypatch.setattr(Autoregressive, "__call__", seen)
    whole = train(tiny(BUCKETS), "whole")
    assert sorted(shapes) == [(8, 3), (8, 7)] and whole.status == "finished"
    assert "longest rows left out 1" in capsys.readouterr().err
    train(tiny(BUCKETS, "experiment.stop_at = 6"), "halves")
    halves = train(tiny(BUCKETS), "halves")
    assert_same_arrays(halves.state.params, whole.state.params)
    assert without_timing(halves.metrics()) == without_timing(whole.metrics())
    with pytest.raises(ConfigError, match="different widths"):
        train(tiny(BUCKETS, "experiment.steps_per_dispatch = 3"), "never")


def test_the_host_waits_for_the_device_only_to_write_records(tiny, monkeypatch):
    fetches, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetches.append(1) or get(tree))
    train(tiny("experiment.log_every = 4"), "run")
    assert len(fetches) == 5  # three records, what is left of the last interval (nothing), and the checksums


def test_the_record_is_the_mean_over_its_steps(tiny):
    every, all_at_once = (train(tiny(f"experiment.log_every = {n}"), f"run{n}").metrics() for n in (1, 12))
    assert all_at_once[0]["loss"] == pytest.approx(np.mean([record["loss"] for record in every]), rel=1e-6)
    assert all_at_once[0]["timing"]["tokens_per_second"] > 0


# --- The run folder -------------------------------------------------------------------------------------------


def test_the_run_folder_says_what_was_run(tiny, folder):
    write_documents(folder)
    run = train(tiny(DOCUMENTS, "experiment.stop_at = 3", "experiment.seed = 7"))
    assert run.folder == Path("runs/tiny")
    there = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    assert there == {
        "config.gin", "config.json", "environment.json", "tokenizer.json", "metrics.jsonl", "checkpoints", "samples",
        "status.json",
    }  # fmt: skip
    saved = json.loads((run.folder / "config.json").read_text())
    assert saved["provenance"]["seed"] == "command line"
    assert saved["provenance"]["steps"].startswith("tiny.gin:")
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__
    assert len(environment["devices"]) == jax.device_count()
    assert environment["earlier"] == []
    assert (saved["hash"], saved["identity"]) == (run.resolved.hash, run.resolved.identity)
    run = train(tiny(DOCUMENTS, "experiment.seed = 7"))
    assert len(json.loads((run.folder / "environment.json").read_text())["earlier"]) == 1


def test_config_gin_alone_gives_the_same_run(tiny):
    from lmlab.config import resolve

    first = train(tiny("experiment.steps = 3"), "first")
    again = train(resolve(["first/config.gin"]), "again")
    assert again.resolved.hash == first.resolved.hash
    assert_same_arrays(first.state, again.state)


def test_a_configuration_that_is_refused_leaves_no_folder(tiny):
    with pytest.raises(ConfigError):
        train(tiny("experiment.global_batch_size = 9; experiment.microbatches = 2"), "run")
    assert not Path("run").exists()


def test_a_folder_of_something_else_is_left_alone(tiny):
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("!")
    with pytest.raises(RunFolderError, match=r"run is no run folder: it holds thesis.tex"):
        train(tiny(), "run")
    assert [path.name for path in Path("run").iterdir()] == ["thesis.tex"]


def test_two_trainings_of_one_folder_at_once_are_refused(tiny):
    train(tiny("experiment.stop_at = 3"), "run")
    with Run("run").files.locked(), pytest.raises(RunFolderError, match=r"run is in use by process \d+"):
        train(tiny(), "run")


@pytest.mark.parametrize("content", ["", "{", '{"spec": 3}', "[]", '{"spec": {"kind": "settings"}, "hash": "0"}'])
def test_a_damaged_config_is_one_line_and_loses_nothing(tiny, content):
    train(tiny("experiment.stop_at = 3"), "run")
    Path("run/config.json").write_text(content)
    with pytest.raises(LmlabError, match=r"run/config.json.*--fresh") as refused:
        train(tiny(), "run")
    assert "\n" not in str(refused.value)
    assert Path("run/checkpoints/3").exists()


@pytest.mark.parametrize("damage", ["cut", "change"])
def test_a_damaged_metrics_file_is_refused_and_an_older_checkpoint_can_be_used(tiny, damage):
    whole = train(tiny(), "whole")
    train(tiny("checkpoints.every = 3; experiment.stop_at = 9; checkpoints.keep_last = 5"), "run")
    path = Path("run/metrics.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1]) + lines[1].replace("6", "5", 1) if damage == "change" else "".join(lines[:1]))
    with pytest.raises(RunFolderError, match=r"metrics.jsonl.*--from-step"):
        train(tiny(), "run")
    assert without_timing(train(tiny(), "run", from_step=3).metrics()) == without_timing(whole.metrics())


# --- Starting from another run --------------------------------------------------------------------------------


def test_init_from_takes_the_parameters_and_nothing_else(tiny, capfd):
    source = train(tiny(), "source")
    new = tiny("experiment.init_from = @init_from", "init_from.run = 'source'", "experiment.optimizer = @sgd",
               "sgd.learning_rate = 0.0; experiment.ema = 0.5; experiment.steps = 3")  # fmt: skip
    run = train(new, "new")
    assert_same_arrays(run.params, source.params)
    assert steps_of(run) == [3]
    assert "parameters from source: 2 loaded, 0 new, 0 ignored" in capfd.readouterr().err


def test_init_from_refuses_other_shapes(tiny):
    train(tiny("experiment.steps = 3"), "source")
    with pytest.raises(CheckpointError, match=r"params/embedding is float32\[11, 5\] there, float32\[11, 6\] here"):
        train(tiny("experiment.init_from = @init_from", "init_from.run = 'source'", "bigram.width = 6"), "new")


# --- What is not finite ---------------------------------------------------------------------------------------


def test_a_few_bad_steps_are_skipped_and_counted(tiny):
    run = train(tiny("experiment.loss = @log_of_zero; log_of_zero.first = 4; log_of_zero.count = 2"), "run")
    assert [record["skipped"] for record in run.metrics()] == pytest.approx([0, 2 / 3, 0, 0])
    assert run.status == "finished"
    assert all(np.isfinite(record["loss"]) for record in run.metrics())


def test_too_many_bad_steps_in_a_row_stop_the_run_with_its_state_saved(tiny):
    how = "experiment.loss = @log_of_zero; log_of_zero.first = 5; finite_guard.patience = 4"
    with pytest.raises(NonFiniteError) as stopped:
        train(tiny(how), "run")
    run = Run("run")
    rows = ", ".join(map(str, run.program.data.train.rows_of(5)))
    assert "from step 5 on" in str(stopped.value)
    assert f"the rows {rows} of" in str(stopped.value)
    assert "lmlab replay run 5" in str(stopped.value)
    assert (run.status, run.step, run.steps()) == ("failed", 9, [9])
    assert "lmlab replay run 5" in run.files.status()["message"]


def test_a_bad_row_is_noticed_across_a_resumption(tiny):
    how = "experiment.loss = @log_of_zero; log_of_zero.first = 2; finite_guard.patience = 5"
    train(tiny(how, "experiment.stop_at = 4"), "run")
    with pytest.raises(NonFiniteError, match="from step 2 on"):
        train(tiny(how), "run")
    assert Run("run").step == 9


def test_a_run_is_evaluated_at_further_steps_whether_it_stops_there_or_not(tiny):
    how = "experiment.eval_at = [2, 5]; experiment.evaluators = [@perplexity]; perplexity.batches = 1"
    stopped = train(tiny(how, "experiment.stop_at = 2"), "run")
    assert steps_of(stopped, "eval") == [2]
    whole = train(tiny(how), "run")
    assert steps_of(whole, "eval") == [2, 5, whole.step]
    with pytest.raises(ConfigError, match=r"does not divide experiment.eval_at.1 = 5"):
        train(tiny("experiment.eval_at = [2, 5]; experiment.steps_per_dispatch = 2; experiment.log_every = 2"), "other")
