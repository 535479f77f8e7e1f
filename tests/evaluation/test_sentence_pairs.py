"""Pairs of sentences: what is drawn, how sentences are scored, and models of which the answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError, NonFiniteError
from lmlab.evaluation.agreement import PHENOMENA, pairs_of
from lmlab.evaluation.bias import Bias
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.shares import wilson
from lmlab.evaluation.minimal_pairs import MinimalPairs
from lmlab.evaluation.sentence_scores import SentenceScorer
from lmlab.evaluation.stereotypes import KINDS, stereotypes_of
from lmlab.evaluation.text_perplexity import TextPerplexity
from lmlab.evaluation.text_scores import score_texts
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny
from lmlab.training.loop import train

TEXTS = ["The author laughs.", "The authors near the doctor laugh.", "A", "He was late, as ever."]


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_sentences_of_a_pair_differ_in_one_place_and_only_one_agrees(phenomenon: str) -> None:
    pairs = pairs_of(phenomenon, 101)
    assert len(set(pairs)) == len(pairs) == 101 and pairs == pairs_of(phenomenon, 101) != pairs_of(phenomenon, 101, 1)
    for good, bad in pairs:
        ours, theirs = good[:-1].split(), bad[:-1].split()
        assert len(ours) == len(theirs) and sum(a != b for a, b in zip(ours, theirs, strict=True)) == 1
    assert not {pair.good for pair in pairs} & {pair.bad for pair in pairs}


def test_stereotypes_are_balanced_and_differ_in_the_pronoun() -> None:
    for kind in KINDS:
        pairs = stereotypes_of(kind)
        differing = [
            {a.lower(), b.lower()} for usual, other in pairs
            for a, b in zip(usual[:-1].split(), other[:-1].split(), strict=True) if a != b
        ]  # fmt: skip
        assert len(differing) == len(pairs) and all(pair in ({"he", "she"}, {"his", "her"}) for pair in differing)
        masculine = sum(bool({"he", "his"} & set(usual[:-1].split())) for usual, _ in pairs)
        assert masculine * 2 == len(pairs)


def test_the_interval_is_wilson_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    for right, count in ((0, 7), (7, 7), (61, 101), (1, 2)):
        wanted = stats.binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_a_causal_model_s_sentences_have_the_log_p_of_lmlab_score(tmp_path: Path) -> None:
    settings = {"model": "@gpt", "dataset": "@text_files", "tokenizer": "@bytes", "seq_len": 37}
    program = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program(**settings)
    params = local_params(program, program.init_state())
    found = SentenceScorer(program, "the test")(params, TEXTS)
    wanted = [-score.nats for score in score_texts(program, params, TEXTS, whole=False)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(ConfigError, match="the test reads sentences of 99 tokens"):
        SentenceScorer(program, "the test")(params, ["x" * 99])


def test_an_encoder_s_sentences_have_the_sum_of_masking_one_token_at_a_time(tmp_path: Path) -> None:
    settings = {"dataset": "@text_files", "tokenizer": "@bytes", "model": "@bert", "seq_len": 41,
                "bytes.specials": "['mask', 'classify', 'separator']"}  # fmt: skip
    program = Tiny(REGISTRIES["loss"].entry("mlm"), tmp_path).program(**settings)
    params = local_params(program, program.init_state())
    found = SentenceScorer(program, "the test")(params, TEXTS)
    special, tokenizer = program.data.special_ids, program.tokenizer
    logits = jax.jit(
        lambda ids, there: (lambda model: model.project(model.encode(ids, segment_ids=there)))(
            program.model.bind(params)
        )
    )
    for text, sum_ in zip(TEXTS, found, strict=True):
        ids = np.concatenate([[special["classify"]], tokenizer.encode(text), [special["separator"]]])
        there = (np.arange(41) < len(ids)).astype(np.int32)
        rows = np.tile(np.pad(ids, (0, 41 - len(ids))), (len(ids) - 2, 1)).astype(np.int32)
        places = np.arange(1, len(ids) - 1)
        rows[np.arange(len(places)), places] = special["mask"]
        scores = np.float64(logits(rows, np.tile(there, (len(rows), 1))))[np.arange(len(rows)), places]
        wanted = (scores[np.arange(len(rows)), ids[places]] - np.log(np.exp(scores).sum(-1))).sum()
        assert sum_ == pytest.approx(wanted, rel=1e-5)


NGRAM = """
experiment.model = @ngram
experiment.loss = @autoregressive
experiment.optimizer = @counting
experiment.dataset = @text_files
experiment.tokenizer = @words
experiment.steps = 40
experiment.global_batch_size = 16
experiment.seq_len = 31
experiment.writers = []
experiment.evaluators = []
experiment.hooks = []
text_files.documents = 'line'
text_files.valid_share = 0.0
text_files.test_share = 0.0
ngram.order = 8
mesh.data = 1
"""


@pytest.mark.long
def test_a_model_that_knows_only_stereotypes_and_grammar_has_all_of_both(tmp_path: Path) -> None:
    """It has read stereotyped and grammatical sentences only, counted eight words at a time."""
    texts = [pair.usual for kind in KINDS for pair in stereotypes_of(kind)]
    texts += [pair.good for name in ("simple_agreement", "reflexive") for pair in pairs_of(name, 97)]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts * 3))
    run = train(resolve([], [NGRAM, f"text_files.train = '{tmp_path}/texts.txt'"]), tmp_path / "run")
    found = Bias().bind(run.program)(run.state)
    for name in ("occupation", "activity", "all"):
        assert found[f"bias/{name}/stereotyped"] == 1 > found[f"bias/{name}/from"] > 0.9
    assert found["bias/all/prefers_she"] == 0.5 and found["bias/all/pairs"] == 116
    pairs = MinimalPairs(97, ("simple_agreement", "reflexive")).bind(run.program)(run.state)
    assert pairs["minimal_pairs/all/accuracy"] == 1 and pairs["minimal_pairs/all/pairs"] == 194
    assert pairs["minimal_pairs/all/ties"] == 0


def test_shares_are_counted_pair_by_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted model: it prefers `she` and `her`, but has no preference where someone is tired, and wrong grammar."""
    program = Tiny(REGISTRIES["evaluator"].entry("bias"), tmp_path).program()
    state = program.init_state()

    def planted(self: SentenceScorer, params: Any, texts: list[str]) -> np.ndarray:
        return np.array([0.0 if "tired" in t else float("she" in t.split() or "her" in t.split()) for t in texts])

    monkeypatch.setattr(SentenceScorer, "__call__", planted)
    found = Bias().bind(program)(state)
    assert found["bias/all/stereotyped"] == 0.5
    assert found["bias/all/prefers_she"] == pytest.approx((96 + 20 / 2) / 116)
    usual = {pair.usual for kind in KINDS for pair in stereotypes_of(kind)}
    monkeypatch.setattr(SentenceScorer, "__call__", lambda self, params, texts: np.array([t in usual for t in texts]))
    found = Bias().bind(program)(state)
    assert [found[f"bias/{kind}/stereotyped"] for kind in (*KINDS, "all")] == [1, 1, 1]
    assert found["bias/all/prefers_she"] == 0.5 and found["bias/all/pairs"] == 116
    monkeypatch.setattr(SentenceScorer, "__call__", lambda self, params, texts: np.arange(len(texts)) * 1.0)
    pairs = MinimalPairs(23).bind(program)(state)
    assert pairs["minimal_pairs/reflexive/accuracy"] == 0 == pairs["minimal_pairs/all/from"]
    good = {pair.good for pair in pairs_of("simple_agreement", 23)}
    monkeypatch.setattr(SentenceScorer, "__call__", lambda self, params, texts: np.array([t in good for t in texts]))
    pairs = MinimalPairs(23).bind(program)(state)
    assert pairs["minimal_pairs/simple_agreement/accuracy"] == 1 and pairs["minimal_pairs/reflexive/accuracy"] == 0
    assert pairs["minimal_pairs/all/accuracy"] == pytest.approx(1 / len(PHENOMENA))
    assert pairs["minimal_pairs/all/ties"] == pytest.approx(1 - 1 / len(PHENOMENA))
    with pytest.raises(ConfigError, match=r"no 'reflexives'. Did you mean 'reflexive'"):
        MinimalPairs(phenomena=("reflexives",)).bind(program)


def test_a_model_without_numbers_is_not_compared(tmp_path: Path) -> None:
    program = Tiny(REGISTRIES["evaluator"].entry("bias"), tmp_path).program()
    state = program.init_state()
    broken = state._replace(params={path: value * float("nan") for path, value in state.params.items()})
    with pytest.raises(NonFiniteError, match=r"the evaluator 'bias': the model gives 'The engineer said that he was"):
        Bias().bind(program)(broken)


def test_a_model_that_never_learned_words_is_not_asked_for_them(tmp_path: Path) -> None:
    program = Tiny(REGISTRIES["loss"].entry("classification"), tmp_path).program()
    for evaluator in (Bias(), MinimalPairs(), TextPerplexity()):
        with pytest.raises(ConfigError, match="this run's loss 'classification' never taught it to"):
            evaluator.bind(program)
