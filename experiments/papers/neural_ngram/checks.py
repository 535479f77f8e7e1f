"""Word models of the Brown corpus beside a Kneser-Ney trigram model that knows the same words."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmlab.errors import DataError
from lmlab.papers.measuring import NotMeasured, RunAt
from lmlab.registry import datasets, load_plugin

KNESER_NEY: Any = load_plugin(str(Path(__file__).parent / "kneser_ney.py"))
TRAIN, VALID, TEST = slice(0, 800_000), slice(800_000, 1_000_000), slice(1_000_000, 1_161_192)
RARE = 3
"""Words that occur so often or less are one kind."""


@functools.cache
def kneser_ney() -> Mapping[str, float]:
    """Perplexities of interpolated Kneser-Ney trigrams: words counted in the whole corpus, or in training only."""
    words = _words()
    stream, vocab = KNESER_NEY.word_ids(words, RARE)
    counted, kinds = KNESER_NEY.word_ids(words[TRAIN], RARE)
    ids = dict(zip(words[TRAIN], counted.tolist(), strict=True))
    own = np.array([ids.get(word, 0) for word in words])
    return {
        "kinds": float(vocab),
        "valid": KNESER_NEY.perplexity(stream, TRAIN, VALID, vocab),
        "test": KNESER_NEY.perplexity(stream, TRAIN, TEST, vocab),
        "kinds_of_training": float(kinds),
        "test_kinds_of_training": KNESER_NEY.perplexity(own, TRAIN, TEST, kinds),
    }


def ratio(runs: Mapping[str, RunAt]) -> float:
    """A model's perplexity on test over that of Kneser-Ney trigrams with the same kinds of words."""
    (run,) = runs.values()
    return math.exp(run.last("test/nats_per_token")) / kneser_ney()["test_kinds_of_training"]


def _words() -> list[str]:
    try:
        brown: Any = datasets.get("brown")()
        return [
            word for split in ("train", "valid", "test") for text in brown.split(split) for word in text.text.split()
        ]
    except DataError as error:
        raise NotMeasured(str(error)) from error
