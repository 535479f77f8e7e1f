"""Text VAEs on the synthetic corpus: likelihoods beside each other, a language model's, and the exact floor."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from statistics import mean

import numpy as np

from lmlab.data.generated.vae_synthetic import VAESynthetic
from lmlab.papers.measuring import RunAt

IMPORTANCE_WEIGHTED = "test/iw500_nats_per_text"
SENTENCES = 100
"""Test sentences of which the exact likelihood is computed; half a second each."""


def gained(runs: Mapping[str, RunAt]) -> float:
    """How far aggressive training is below the basic one, in nats per text."""
    return runs["basic"].last(IMPORTANCE_WEIGHTED) - runs["aggressive"].last(IMPORTANCE_WEIGHTED)


def beside_language_model(runs: Mapping[str, RunAt]) -> float:
    """How far the basic VAE is from a language model of its decoder's size, in nats per text."""
    per_token = runs["language_model"].last("test/nats_per_token")
    return runs["basic"].last(IMPORTANCE_WEIGHTED) - 11 * per_token


def above_floor(runs: Mapping[str, RunAt]) -> float:
    """How far the best run is above what the source itself gives its sentences, in nats per text."""
    return min(run.last(IMPORTANCE_WEIGHTED) for run in runs.values()) - floor()


@functools.cache
def floor() -> float:
    """The exact -log p of the first test sentences, by quadrature over z: a mean over texts."""
    source = VAESynthetic()
    rows = source.split("test")
    sentences = np.stack([rows[index].ids[1:-1] for index in range(SENTENCES)])
    return mean(source.marginal_nats(sentences).tolist())
