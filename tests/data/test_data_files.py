"""The files of experiments/data: each resolves, as a part of an experiment, to a dataset and what reads it."""

from pathlib import Path

import pytest

from lmlab.config import resolve
from lmlab.examples import IDS
from lmlab.registry import datasets

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "data"
REST = [
    "experiment.model = @gpt",
    "experiment.loss = @autoregressive",
    "experiment.optimizer = @adamw",
    "adamw.learning_rate = 1e-3",
    "experiment.steps = 3",
    "experiment.global_batch_size = 2",
    "experiment.seq_len = 5",
]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.gin")), ids=lambda file: file.stem)
def test_the_file_names_a_dataset_and_the_tokenizer_that_it_needs(file):
    more = ["text_files.train = 'mine.txt'"] if file.stem == "text_files" else []
    parts = resolve([str(file)], [*REST, *more]).spec.kwargs
    assert parts["dataset"].name == file.stem
    assert (parts["tokenizer"] is not None) == (datasets.get(file.stem).example not in IDS)
