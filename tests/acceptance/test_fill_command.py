"""`lmlab fill` on a small encoder that has learned one sentence by heart, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.training.loop import train

TINY = """
experiment.model = @{model}
experiment.loss = @{loss}
experiment.dataset = @text_files
experiment.tokenizer = @bytes
experiment.optimizer = @adamw
experiment.steps = {steps}
experiment.global_batch_size = 16
experiment.seq_len = 16
experiment.writers = []
experiment.evaluators = []
experiment.hooks = []
{model}.width = 32
bytes.specials = ['mask']
adamw.learning_rate = 0.02
mesh.data = 1
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fill")
    (folder / "corpus.txt").write_text("abcd" * 500)
    return folder


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    text = TINY.format(model="bilstm", loss="mlm", steps=50)
    train(
        resolve(
            [],
            [
                text,
                f"text_files.train = '{corpus}/corpus.txt'",
                "bilstm.layers = 1; bilstm.cell = 'elman'; bilstm.init_scale = 0.3",
            ],
        ),
        corpus / "run",
    )
    return corpus / "run"


def test_masks_are_filled_with_what_the_encoder_learned(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", str(run), "ab<mask>dabcda<mask>cd", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5:2]] == [["1", "c"], ["2", "b"]]
    assert all(0 <= float(line.split()[2]) <= 1 for line in lines[1:5])
    assert lines[-1] == "abcdabcdabcd"
    assert main(["fill", str(run), "abc<mask><mask>bcd", "--steps", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "abcdabcd"


@pytest.mark.parametrize("draw", ["gibbs", "diffusion"])
def test_texts_are_drawn_around_what_is_given(run: Path, capsys: pytest.CaptureFixture[str], draw: str) -> None:
    options = ["--masks", "5", "--draw", draw, "--steps", "5", "--count", "3", "--seed", "1"]
    assert main(["fill", str(run), "ab<mask>d", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"--- sample {n} ---" for n in (1, 2, 3)]
    assert sum(line == "abcdabcda" for line in lines[1::2]) >= 2  # a loss of almost nothing: hardly ever another one
    assert main(["fill", str(run), "ab<mask>d", *options]) == 0
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("text", "options", "code", "message"),
    [
        ("abcd", (), 3, "there is no <mask> in 'abcd'"),
        ("", (), 3, "there is no token in ''"),
        ("c<mask>t", ("--top", "0"), 2, "--top 0: it must be at least 1"),
        ("c<mask>t", ("--count", "2"), 2, "the most probable text is one: --count needs --draw"),
        ("c", ("--masks", "-1"), 2, "--masks -1: it must be at least 0"),
        ("c<mask>t", ("--draw", "gibbs", "--seed", "-1"), 2, "--seed -1: it must be between"),
        ("c<mask>t", ("--step", "7"), 4, "has no checkpoint"),
    ],
)
def test_what_cannot_be_filled_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], text: str, options: tuple[str, ...], code: int, message: str
) -> None:
    assert main(["fill", str(run), text, *options]) == code
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_a_model_that_reads_one_way_fills_nothing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TINY.format(model="lstm", loss="autoregressive", steps=1)
    train(resolve([], [text, f"text_files.train = '{corpus}/corpus.txt'"]), corpus / "lstm")
    assert main(["fill", str(corpus / "lstm"), "c<mask>t"]) == 2
    assert "masks are filled by a BidirectionalLM; the model 'lstm' is none" in capsys.readouterr().err
