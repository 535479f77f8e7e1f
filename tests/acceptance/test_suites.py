"""`lmlab eval RUN --suite NAME`: measurements that a run was not trained with, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import SMALL

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.evaluation.suites import SUITES, suite_evaluators
from lmlab.registry import evaluators
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


def measured(run: Path, name: str) -> dict[str, float]:
    return json.loads((run / "eval" / f"2-{name}.json").read_text())["metrics"]


def test_a_suite_is_printed_and_kept_beside_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(run), "--suite", "minimal_pairs", "--set", "minimal_pairs.count = 5; minimal_pairs.seed = 3"]
    assert main(words) == 0
    assert "minimal_pairs/across_object_relative/accuracy" in capsys.readouterr().out
    assert measured(run, "minimal_pairs")["minimal_pairs/all/pairs"] == 55
    assert (
        main(["eval", str(run), "--suite", "perplexity", "--split", "test", "--set", "text_perplexity.stride = 5"]) == 0
    )
    found = measured(run, "perplexity-test")
    assert found["test/ppl/byte/window-16-stride-5"] > 1
    saved = json.loads((run / "eval" / "2-perplexity-test.json").read_text())
    assert saved["suite"] == "perplexity" and saved["evaluators"][0]["kwargs"]["stride"] == 5


def test_data_of_another_kind_than_the_run_s_are_given_by_set(run: Path) -> None:
    pytest.importorskip("sklearn")
    data = f"probing.dataset = @table_labelled(); table_labelled.train = '{run.parent}/rows.tsv'"
    shares = "table_labelled.valid_share = 0.3; probing.layers = [2]"
    assert main(["eval", str(run), "--suite", "probing", "--set", data, "--set", shares]) == 0
    found = measured(run, "probing")
    assert 0 <= found["valid/probing/layer-2/accuracy"] <= 1 and found["valid/probing/trained_on"] > 20


def test_every_suite_is_made_of_evaluators() -> None:
    for name in SUITES:
        assert all(spec.name in evaluators.names() for spec in suite_evaluators(name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "perplexty"], "no suite named 'perplexty'. Did you mean 'perplexity'"),
        (["--suite", "classification"], "needs a loss that reads a LabelBatch"),
        (["--suite", "tagging"], "needs a loss that reads a TagBatch"),
        (["--suite", "translation"], "reads TextPair, and the dataset 'text_files' yields Text"),
        (["--suite", "probing"], "reads TaggedText or LabelledText, and the dataset 'text_files' yields Text"),
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
