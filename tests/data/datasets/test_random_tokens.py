"""Random ids: the law that they claim, the entropy that they claim."""

import numpy as np
import pytest
from scipy import stats

from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.errors import ConfigError, DataError


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_ids_follow_their_law_and_their_entropy(exponent):
    dataset = RandomTokens(vocab=13, tokens=50_000, exponent=exponent)
    ids = dataset.split("train")[0].ids
    assert ids.dtype == np.uint8 and len(ids) == 50_000
    counts = np.bincount(ids, minlength=13)
    assert stats.chisquare(counts, dataset.probabilities * len(ids)).pvalue > 1e-3
    assert dataset.entropy == pytest.approx(stats.entropy(1.0 / np.arange(1, 14) ** exponent), rel=1e-12)
    known = dataset.known()
    assert known["entropy/nats_per_token"] == dataset.entropy
    assert known["optimum/accuracy"] == pytest.approx(counts.max() / len(ids), abs=0.01)
    assert known["chance/nats_per_token"] == pytest.approx(np.log(13))


def test_splits_and_seeds_are_drawn_apart_and_again_the_same():
    dataset = RandomTokens(tokens=500, valid_tokens=500)
    train, valid = dataset.split("train")[0].ids, dataset.split("valid")[0].ids
    assert (train != valid).mean() > 0.9 and (
        train != RandomTokens(tokens=500, seed=1).split("train")[0].ids
    ).mean() > 0.9
    np.testing.assert_array_equal(train, RandomTokens(tokens=500).split("train")[0].ids)
    assert dataset.fingerprint() == RandomTokens(tokens=500, valid_tokens=500).fingerprint()
    assert dataset.fingerprint() != RandomTokens(tokens=500, valid_tokens=500, seed=1).fingerprint()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match="no split 'dev'"):
        RandomTokens().split("dev")


def test_special_ids_never_occur_and_do_not_count_to_the_entropy():
    dataset = RandomTokens(vocab=9, tokens=5003, specials=("mask", "begin"))
    assert dataset.special_ids == {"mask": 7, "begin": 8}
    assert set(dataset.split("train")[0].ids.tolist()) == set(range(7))
    assert dataset.entropy == pytest.approx(np.log(7))
    with pytest.raises(ConfigError, match="no ids beside 2 specials"):
        RandomTokens(vocab=2, specials=("mask", "begin"))
