"""Targets that a run's model writes, against sacrebleu, rouge-score and SQuAD's rules called on the same texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.target_report import TargetReport, TargetWriter
from lmlab.generation.beam import BeamOptions
from lmlab.generation.samplers import Greedy
from lmlab.generation.writing import Author
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

SETTINGS = {"seq_len": 13, "source_len": 11, "model": "@rnn_seq2seq", "rnn_seq2seq.init_scale": 1.5}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Tiny(REGISTRIES["evaluator"].entry("target_report"), tmp_path_factory.mktemp("pairs")).program(**SETTINGS)


@pytest.fixture(scope="module")
def state(program: Any) -> Any:
    return program.init_state()


@pytest.mark.parametrize("beams", [1, 3])
def test_numbers_are_those_of_the_programs_on_what_is_written_at_once(program: Any, state: Any, beams: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rougeL"])
    pairs = program.data.dataset.split("train")
    measures = ("bleu", "chrf", "rouge", "words")
    report = TargetReport(split="train", measures=measures, beams=beams, force=True)
    found = report.bind(program)(state)
    author, params = Author(program, Greedy()), local_params(program, state)
    cut = [pair.text.encode()[:10].decode() for pair in pairs]  # a source has room for 10 bytes and its end
    if beams == 1:
        written = [text.strip() for text in author.write(params, cut, length=13, seed=0)]
    else:
        written = [row[0][0].strip() for row in author.search(params, cut, BeamOptions(beams), length=13)]
    assert len(pairs) > 17 and len(set(written)) > 1, "the test needs more than one batch, and texts that differ"
    references = [pair.target for pair in pairs]
    wanted = sacrebleu.corpus_bleu(written, [references], force=True).score
    assert found["train/bleu/sacrebleu-13a"] == pytest.approx(wanted)
    assert found["train/chrf/sacrebleu"] == pytest.approx(sacrebleu.corpus_chrf(written, [references]).score)
    scores = [scorer.score(target, text) for target, text in zip(references, written, strict=True)]
    for kind in ("rouge1", "rougeL"):
        wanted = np.mean([score[kind].fmeasure for score in scores])
        assert found[f"train/{kind}/f1-rouge-score"] == pytest.approx(wanted)
    assert found["train/examples"] == len(pairs) == found["train/sources_cut"] + sum(len(p.text) <= 10 for p in pairs)


def test_a_model_that_copies_is_right_by_every_measure(
    program: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is replaced: what is left is which text is compared with which."""
    pytest.importorskip("sacrebleu")
    pairs = program.data.dataset.split("valid")
    right = [pair.target for pair in pairs]
    monkeypatch.setattr("lmlab.evaluation.target_report.TargetWriter.write", lambda self, params, sources: right)
    found = TargetReport(measures=("bleu", "chrf++", "squad", "words")).bind(program)(state)
    for name, value in {
        "bleu/sacrebleu-13a": 100, "chrf++/sacrebleu": 100, "exact_match/squad-1.1": 100, "f1/squad-1.1": 100,
        "sequence_exact_match": 1, "word_error_rate": 0,
    }.items():  # fmt: skip
        assert found[f"valid/{name}"] == pytest.approx(value)


def test_a_causal_model_reads_pairs_as_it_was_trained_to(tmp_path: Path) -> None:
    settings = {"model": "@gpt", "loss": "@autoregressive", "seq_len": 53, "gpt.positions": "rotary"}
    program = Tiny(REGISTRIES["evaluator"].entry("target_report"), tmp_path).program(**settings)
    row = program.data.split("valid").batch(0)
    report = TargetReport(measures=("words",), length=3)
    pairs = program.data.dataset.split("valid")
    sources, cut = TargetWriter(program, 3).sources([pair.text for pair in pairs])
    assert cut == 0
    for b, source in enumerate(sources[: len(row["tokens"])]):
        np.testing.assert_array_equal(row["tokens"][b, : len(source)], source)
        assert row["weights"][b, len(source) - 1] == 1 and not row["weights"][b, : len(source) - 1].any()
    assert report.bind(program)(program.init_state())["valid/examples"] == len(pairs)


def test_what_writes_no_targets_is_refused(tmp_path: Path) -> None:
    program = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program(dataset="@text_files")
    with pytest.raises(ConfigError, match="'target_report' reads TextPair, and the dataset 'text_files' yields Text"):
        TargetReport().bind(program)
