"""The coordinate check: under muP activations of a wide model are as large as of a narrow one, and else they grow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.evaluation.coordinates import Coordinates

GIN = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 20
experiment.global_batch_size = 5
experiment.seq_len = 13
experiment.compute_dtype = 'float32'
random_tokens.vocab = 23
adamw.learning_rate = 0.01
gpt.layers = 2
gpt.heads = 2
"""
WIDTHS = "8,128"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.gin"
    path.write_text(GIN)
    return str(path)


def shown(capsys, *words: str) -> tuple[int, dict[str, float], str]:
    """Exit code, the power of each place, and everything."""
    code = main(["coordinates", *words])
    text = capsys.readouterr().out
    rows = re.findall(r"^(block \d|logits) .*? ([+-]\d\.\d\d) +[+-]\d\.\d\d +[+-]\d\.\d\d$", text, re.M)
    return code, {place: float(power) for place, power in rows}, text


def test_sizes_grow_with_the_width_without_mup_and_do_not_under_it(file, capsys):
    code, powers, text = shown(capsys, file, "--widths", WIDTHS)
    assert code == 1 and list(powers) == ["block 1", "block 2", "logits"]
    assert powers["block 1"] > 0.5 and powers["block 2"] > 0.5 and "block 1, block 2" in text
    code, powers, text = shown(capsys, file, "--widths", WIDTHS, "--set", "gpt.mup_base_width = 8")
    assert code == 0 and all(abs(power) < 0.2 for power in powers.values()), text
    assert "No mean |x| grows" in text


def test_powers_are_those_of_the_width():
    widths = (8, 16, 64)
    sizes = [tuple(float(3 * np.power(width, power)) for width in widths) for power in (0.5, -1.0, 0.0)]
    assert Coordinates("x", widths, *sizes).slopes == pytest.approx((0.5, -1.0, 0.0), abs=1e-9)


def test_other_models_of_blocks_are_looked_at_and_those_without_refused(tmp_path, capsys):
    path = tmp_path / "other.gin"
    path.write_text("".join(line + "\n" for line in GIN.splitlines() if not line.startswith("gpt.")))
    of = ["--widths", "8,16", "--steps", "1", "--set"]
    code, powers, _ = shown(capsys, str(path), *of, "experiment.model = @mamba; mamba.layers = 1", "--tolerance", "9")
    assert code == 0 and list(powers) == ["block 1", "logits"]
    assert main(["coordinates", str(path), *of, "experiment.model = @lstm"]) == 2
    assert "'lstm' is no causal model of one stack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--widths", "8"], 2, "at least two different widths"),
        (["--widths", "8,wide"], 2, "write whole numbers"),
        (["--widths", "8,9"], 2, "gpt.width = 9 does not divide into gpt.heads = 2"),
        (["--steps", "0"], 2, "--steps 0: it must be at least 1"),
        (["--widths", "8,16", "--set", "adamw.learning_rate = 1e30"], 5, "not finite after 4 steps. Lower the rate"),
    ],
)
def test_a_mistake_is_one_line(file, capsys, words, code, why):
    assert main(["coordinates", file, *words]) == code
    said = capsys.readouterr()
    assert why in said.err and said.err.count("\n") == 1
