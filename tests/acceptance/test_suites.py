"""`lmlab eval RUN --suite NAME`: measurements that a run was not trained with, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import SMALL

from lmlab.cli.main import main
from lmlab.config import build, resolve
from lmlab.evaluation.suites import SUITES, suite_evaluators
from lmlab.registry import find
from lmlab.testing.tiny import Tiny
from lmlab.training.loop import train

GPT = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
text_files.train = '{folder}/corpus.txt'
text_files.documents = 'line'
text_files.valid_share = 0.2
text_files.test_share = 0.2
gpt.positions = 'rotary'
gpt.width = 12
gpt.heads = 3
gpt.layers = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    (folder / "corpus.txt").write_text("".join(f"to be or not to be, {n}\n" for n in range(50)))
    (folder / "rows.tsv").write_text(
        "text\tlabel\n" + "".join(f"a {n}\t{'odd' if n % 2 else 'even'}\n" for n in range(60))
    )
    train(resolve([], [SMALL, GPT.format(folder=folder)]), folder / "run")
    return folder / "run"


def measured(run: Path, suite: str) -> dict[str, float]:
    """What was measured with settings of one's own."""
    (file,) = (run / "eval").glob(f"2-{suite}-*.json")
    return json.loads(file.read_text())["metrics"]


def test_a_suite_is_printed_and_kept_beside_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "minimal_pairs.count = 5; minimal_pairs.phenomena = ['simple_agreement', 'across_object_relative']"
    assert main(["eval", str(run), "--suite", "minimal_pairs", "--set", settings]) == 0
    assert "minimal_pairs/across_object_relative/accuracy" in capsys.readouterr().out
    assert measured(run, "minimal_pairs")["minimal_pairs/all/pairs"] == 10
    assert (
        main(["eval", str(run), "--suite", "perplexity", "--split", "test", "--set", "text_perplexity.stride = 5"]) == 0
    )
    (file,) = (run / "eval").glob("2-perplexity-test-*.json")  # other settings have another file
    saved = json.loads(file.read_text())
    assert saved["metrics"]["test/ppl/byte/window-16-stride-5"] > 1
    assert saved["suite"] == "perplexity" and saved["evaluators"][0]["stride"] == 5


def test_data_of_another_kind_than_the_run_s_are_given_by_set(run: Path) -> None:
    pytest.importorskip("sklearn")
    data = f"probing.dataset = @table_labelled(); table_labelled.train = '{run.parent}/rows.tsv'"
    shares = "table_labelled.valid_share = 0.3; probing.layers = [2]"
    assert main(["eval", str(run), "--suite", "probing", "--set", data, "--set", shares]) == 0
    found = measured(run, "probing")
    assert 0 <= found["valid/probing/layer-2/accuracy"] <= 1 and found["valid/probing/trained_on"] > 20


FITTING = {
    "perplexity": "text_perplexity", "classification": "classification", "tagging": "tagging",
    "translation": "target_report", "summarisation": "target_report", "squad": "span", "minimal_pairs": "minimal_pairs",
    "calibration": "autoregressive", "bias": "bias", "probing": "probing",
}  # fmt: skip
"""Of each suite a component whose smallest experiment it fits."""


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_a_run_that_it_measures(suite: str, tmp_path: Path) -> None:
    program = Tiny(find(FITTING[suite]), tmp_path).program()
    (spec,) = suite_evaluators(suite)
    assert callable(build(spec).bind(program))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "perplexty"], "no suite named 'perplexty'. Did you mean 'perplexity'"),
        (["--suite", "classification"], "needs a loss that reads a LabelBatch"),
        (["--suite", "tagging"], "needs a loss that reads a TagBatch"),
        (["--suite", "translation"], "reads TextPair, and the dataset 'text_files' yields Text"),
        (["--suite", "probing"], "reads TaggedText or LabelledText, and the dataset 'text_files' yields Text"),
        (["--suite", "squad"], "needs a loss that reads a SpanBatch"),
        (["--suite", "summarisation"], "reads TextPair, and the dataset 'text_files' yields Text"),
        (["--suite", "bias", "--split", "test"], "--split changes nothing here: bias has no such parameter"),
        (["--suite", "perplexity", "--batches", "3"], "--batches changes nothing here: text_perplexity has no such"),
        (["--suite", "bias", "--set", "suite.evaluators = []"], "leaves the suite 'bias' without evaluators"),
        (["--suite", ""], "no suite named ''"),
        (["--suite", "bias", "--set", "bias.size = 3"], "has no parameter 'size'"),
        (["--suite", "bias", "--set", "gpt.layers = 3"], "'gpt.layers' changes nothing"),
        (["--set", "bias.size = 3"], "--set is of --suite"),
        (["--suite", "minimal_pairs", "--set", "minimal_pairs.phenomena = ['x']"], "there is no 'x'"),
    ],
)
def test_what_a_model_cannot_serve_is_said(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["eval", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.startswith("lmlab: ")
