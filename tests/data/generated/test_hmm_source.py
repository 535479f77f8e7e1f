"""The HMM source: the published optima of its default, and that its rows are what the optima are of."""

import numpy as np
import pytest

from lmlab.data.generated.hidden_markov import autoregressive_nats
from lmlab.data.generated.hmm_source import HMMSource
from lmlab.errors import ConfigError


def test_the_default_has_the_entropies_that_were_worked_out_before():
    known = HMMSource().known()
    found = [known[f"entropy/{name}_nats_per_token"] for name in ("unigram", "bigram", "trigram")]
    assert found == pytest.approx([3.0805, 2.4275, 2.1971], abs=5e-5)
    for name, nats, error in (  # value and standard error of an earlier, independent computation
        ("autoregressive_optimum_nats_per_token", 2.1589, 0.0008),
        ("masked_15_optimum_nats_per_masked_token", 1.7592, 0.003),
        ("masked_15_80_10_10_optimum_nats_per_selected_token", 1.6375, 0.003),
    ):
        spread = np.hypot(known[f"estimate/{name}_standard_error"], error)
        assert spread < 0.012 and known[f"estimate/{name}"] == pytest.approx(nats, abs=4 * spread)


def test_rows_open_with_an_id_of_their_own():
    dataset = HMMSource(states=3, symbols=5, length=7)
    bare = HMMSource(states=3, symbols=5, length=7, begin=False)
    for split in ("train", "valid"):
        for row, symbols in zip(dataset.split(split)[:20], bare.split(split)[:20], strict=True):
            assert row.ids.tolist() == [5, *symbols.ids.tolist()] and row.ids.dtype == np.int32
            assert row.targets is None and symbols.ids.max() < 5 and len(symbols.ids) == 7
    assert dataset.vocab == 7 and dataset.special_ids == {"begin": 5, "mask": 6}
    np.testing.assert_array_equal(dataset.sequences("valid", 3), [bare.split("valid")[i].ids for i in range(3)])


def test_without_a_beginning_the_first_symbol_does_not_count():
    settings = {"states": 3, "symbols": 5, "length": 2}
    optimum = "estimate/autoregressive_optimum_nats_per_token"
    whole, bare = HMMSource(**settings).known(), HMMSource(**settings, begin=False).known()
    assert bare[optimum] == pytest.approx(whole["entropy/bigram_nats_per_token"], abs=0.1)
    both = whole["entropy/unigram_nats_per_token"] + whole["entropy/bigram_nats_per_token"]
    assert whole[optimum] == pytest.approx(both / 2, abs=0.1)
    assert bare[optimum] < whole[optimum]


def test_the_optimum_is_that_of_held_out_sequences_too():
    dataset = HMMSource(states=3, symbols=5, length=16)
    known = dataset.known()
    nats = autoregressive_nats(dataset.model, dataset.sequences("test", 1000))
    name = "estimate/autoregressive_optimum_nats_per_token"
    spread = np.hypot(nats.mean(axis=1).std() / np.sqrt(1000), known[f"{name}_standard_error"])
    assert nats.mean() == pytest.approx(known[name], abs=4 * spread)


def test_the_law_of_sequences_adds_up_to_one_and_excludes_what_is_no_symbol():
    dataset = HMMSource(states=3, symbols=5, length=3)
    every = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)
    assert np.exp(-dataset.nats(every).sum(axis=1)).sum() == pytest.approx(1, rel=1e-9)
    nats = dataset.nats(np.array([[1, 6, 2], [1, 2, 2]]))
    assert nats[0].tolist() == [nats[1, 0], np.inf, 0.0] and np.isfinite(nats[1]).all()
    with pytest.raises(ConfigError, match="begin"):
        HMMSource(begin=False).nats(every)
