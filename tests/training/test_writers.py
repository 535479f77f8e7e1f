import csv
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from lmlab.errors import ConfigError
from lmlab.training.console import Bar, Lines, clock
from lmlab.training.loop import train
from lmlab.training.run import Run

RECORD = {
    "step": 30, "phase": "train", "loss": 2.5, "skipped": 0.0, "accuracy": None,
    "timing": {"time": 1e9, "seconds": 2.0, "steps_per_second": 5.0, "tokens_per_second": 4321.9},
}  # fmt: skip
EVALUATION = {"step": 30, "phase": "eval", "valid/ppl/token": 12.3456, "valid/tokens": 168}


def numbers_of(records):
    """Every number of the records as (step, phase, name, value), times aside."""
    return [
        (record["step"], record["phase"], name, float(value))
        for record in records
        for name, value in record.items()
        if name not in ("step", "phase", "timing") and value is not None
    ]


def interrupted_and_resumed(tiny, how):
    """A run that was killed after its checkpoint of step 6 had fallen behind its writers."""
    train(tiny(how, "checkpoints.every = 3; experiment.stop_at = 9; checkpoints.keep_last = 9"), "run")
    return train(tiny(how), "run", from_step=3)


def test_csv_holds_every_number_once_also_after_a_resumption(tiny):
    run = interrupted_and_resumed(tiny, "experiment.writers = [@csv]")
    with Path("run/metrics.csv").open() as file:
        rows = [(int(r["step"]), r["phase"], r["name"], float(r["value"])) for r in csv.DictReader(file)]
    assert [row for row in rows if not row[2].startswith("timing/")] == numbers_of(run.metrics())


def test_jsonl_copies_the_records_to_another_file(tiny):
    run = interrupted_and_resumed(tiny, "experiment.writers = [@jsonl]; jsonl.path = 'copy.jsonl'")
    assert [json.loads(line) for line in Path("run/copy.jsonl").read_text().splitlines()] == run.metrics()


def test_jsonl_to_standard_output_is_for_a_program_that_listens(tiny, capsys):
    run = train(tiny("experiment.writers = [@jsonl]"), "run")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == run.metrics()


def test_jsonl_does_not_overwrite_the_truth(tiny):
    with pytest.raises(ConfigError, match="is the run's own file"):
        train(tiny("experiment.writers = [@jsonl]; jsonl.path = 'metrics.jsonl'"), "run")
    assert Run("run").metrics() == []


def test_tensorboard_holds_every_number_once_also_after_a_resumption(tiny):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401

    run = interrupted_and_resumed(tiny, "experiment.writers = [@tensorboard]")
    found = []
    for path in sorted(Path("run/tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    wanted = [(step, f"{phase}/{name}", pytest.approx(value)) for step, phase, name, value in numbers_of(run.metrics())]
    assert [row for row in found if "timing" not in row[1]] == wanted


def test_wandb_runs_offline_and_a_resumed_run_continues_the_same_page(tiny, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    how = "experiment.writers = [@wandb]"
    train(tiny(how, "experiment.stop_at = 3"), "run")
    page = Path("run/wandb_page").read_text()
    train(tiny(how), "run")
    sessions = sorted(path.name for path in Path("run/wandb").glob("offline-run-*"))
    assert sessions
    assert all(name.endswith(page) for name in sessions)


@pytest.mark.parametrize(("writer", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_extra_is_one_line_that_says_how_to_install_it(tiny, monkeypatch, writer, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.x", raising=False)
    with pytest.raises(ConfigError, match=rf"needs {module}: pip install 'lmlab\[{writer}\]'") as refused:
        train(tiny(f"experiment.writers = [@{writer}]"), "run")
    assert "\n" not in str(refused.value)


def test_the_console_prints_plain_lines_where_there_is_no_terminal(tiny, capsys):
    train(tiny("experiment.writers = [@console]; experiment.evaluators = [@numbers]"), "run")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [*(f"step {n}/12" for n in (3, 6, 9, 12)), "step 12"]
    assert "eval" in lines[-1]
    assert "valid/number 1" in lines[-1]


def test_a_line_shows_loss_speed_and_the_time_that_is_left(capsys):
    Lines(130).write(RECORD)
    assert capsys.readouterr().out == "step 30/130  loss 2.5000  4,322 tokens/s  ETA 0:00:20\n"


def test_a_line_shows_skipped_updates_and_a_loss_that_is_not_known(capsys):
    Lines(130).write({"step": 30, "phase": "train", "loss": None, "skipped": 1.0})
    assert capsys.readouterr().out == "step 30/130  loss -  skipped 100%\n"


def test_the_bar_shows_the_same_on_a_terminal():
    screen = io.StringIO()
    bar = Bar(130, "mine", Terminal(file=screen, force_terminal=True, width=120))
    bar.write(RECORD)
    bar.write(EVALUATION)
    bar.close()
    shown = screen.getvalue()
    for text in ("mine", "30/130", "loss 2.5000", "4,322 tokens/s", "ETA", "valid/ppl/token 12.35  valid/tokens 168"):
        assert text in shown


def test_times_are_shown_as_hours_minutes_and_seconds():
    assert [clock(seconds) for seconds in (0, 61.9, 3600, 36_061)] == ["0:00:00", "0:01:01", "1:00:00", "10:01:01"]
