"""`lmlab check`: what a configuration would cost, and what is refused before it costs anything."""

import pytest

from lmlab.cli.check import size_text
from lmlab.cli.main import main
from tests.training.conftest import PLUGIN, TINY


@pytest.fixture
def check(own_catalogue, tmp_path, monkeypatch, capfd):
    """Runs `lmlab check`; gives the exit code, the rows that it prints and its errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gin").write_text(TINY)

    def run(*overrides):
        capfd.readouterr()
        code = main(["check", "tiny.gin", "--plugin", PLUGIN, *(f"--set={override}" for override in overrides)])
        out, errors = capfd.readouterr()
        rows = dict(line.rsplit("  ", 1) for line in out.splitlines()[1:])
        return code, {name.strip(): value.strip() for name, value in rows.items()}, errors

    return run


def test_check_prints_parameters_memory_flops_and_tokens(check, tmp_path):
    code, rows, _ = check("experiment.ema = 0.9")
    assert code == 0
    assert rows["parameters"] == "110"
    assert rows["embedding"] == rows["head"] == "55"
    assert rows["tokens per step"] == "56"
    assert rows["steps"] == "12 (1.19 epochs of 81 rows)"
    assert rows["FLOPs per step (matrix products)"] == f"{3 * 2 * 56 * 5 * 11:.4g}"
    assert rows["by the rule 6·N·tokens"] == f"{6 * 110 * 56:.4g}"
    assert rows["of the parameters"] == "440 bytes"
    assert rows["of the optimizer state"] == size_text(440 * 3 + 3 * 4)  # two moments and the average; three counters
    assert not (tmp_path / "runs").exists()


def test_check_compiles_nothing(check, monkeypatch):
    import jax

    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *args, **kwargs: pytest.fail("compiled"))
    assert check()[0] == 0


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("experiment.model = @rock; rock.x = 1", "rock"),
        ("experiment.global_batch_size = 9; experiment.microbatches = 2", "does not divide over 1 devices × 2"),
        ("random_tokens.tokens = 5", "shorter than one window"),
        ("experiment.tokenizer = @bytes", "yields ids, not text"),
        ("experiment.evaluators = [@perplexity]; perplexity.split = 'dev'", "no split 'dev'"),
    ],
)
def test_check_refuses_what_training_would_refuse(check, override, text):
    code, _, errors = check(override)
    assert code in (2, 3)
    assert text in errors
    assert "Traceback" not in errors


def test_sizes_are_shown_in_binary_units():
    assert [size_text(size) for size in (5, 2048, 3 * 2**20, 2**31)] == ["5 bytes", "2.0 KiB", "3.0 MiB", "2.0 GiB"]
