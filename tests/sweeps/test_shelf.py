"""What several trials read is read once, and is what each would have read alone."""

from __future__ import annotations

import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.data.datasets.text_files import TextFiles
from lmlab.sweeps.together import Together
from lmlab.training.program import Program

FILE = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
experiment.tokenizer = @bpe
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 2
experiment.seq_len = 5
bpe.size = 270
gpt.layers = 1
gpt.width = 8
gpt.heads = 2
mesh.data = 1
"""


@pytest.fixture
def texts(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"the cat and the hat number {number} " * 5)
    return f"text_files.split_by = 'position'; text_files.train = '{tmp_path}/*.txt'"


def made(*texts):
    return resolve([], [FILE, *texts])


def test_trials_read_what_they_would_have_read_alone_and_the_corpus_is_read_once(texts, monkeypatch):
    read = []
    split = TextFiles.split
    monkeypatch.setattr(TextFiles, "split", lambda self, name: read.append(id(self)) or split(self, name))
    group = Together(("seed", "optimizer.learning_rate"))
    rates = [f"adamw.learning_rate = {rate}; experiment.seed = {seed}" for rate in (0.1, 0.2) for seed in (0, 7)]
    trials = [made(texts, rate) for rate in rates]
    programs = [group.make(trial) for trial in trials]
    assert len(set(read)) == 1
    assert programs[0].data is programs[2].data is not programs[1].data
    assert all(program.model is programs[0].model for program in programs)
    for program, trial in zip(programs, trials, strict=True):
        alone = Program(trial).data.train
        assert program.data.train.fingerprint() == alone.fingerprint()
        for k in (0, 3):
            for name, values in alone.batch(k).items():
                np.testing.assert_array_equal(program.data.train.batch(k)[name], values)


def test_another_vocabulary_or_corpus_is_not_mixed_up_with_those_that_are_there(texts):
    group, rate = Together(()), "adamw.learning_rate = 0.1"
    first = group.make(made(texts, rate))
    smaller = group.make(made(texts, rate, "bpe.size = 265"))
    assert (first.data.vocab, smaller.data.vocab) == (270, 265)
    saved = Program(made(texts, rate, "bpe.size = 262")).tokenizer.to_json()
    going_on = group.make(made(texts, rate), saved_tokenizer=saved)
    assert going_on.data.vocab == 262 and first.data is group.make(made(texts, rate)).data
    other = Together((), group.shelf).make(made(texts, rate, "text_files.valid_share = 0.5"))
    assert (
        other.data.train.fingerprint()
        == Program(made(texts, rate, "text_files.valid_share = 0.5")).data.train.fingerprint()
    )


def test_networks_that_differ_in_a_number_are_defined_each_for_itself(texts):
    group = Together(("model.dropout",))
    programs = [group.make(made(texts, "adamw.learning_rate = 0.1", f"gpt.dropout = {p}")) for p in (0.1, 0.2)]
    assert programs[0].model is not programs[1].model
