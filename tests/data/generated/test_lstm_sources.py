"""The two LSTM sources: their laws by plain float64 loops, by enumeration, and by Monte Carlo."""

import itertools

import numpy as np
import pytest

from lmlab.data.generated import lstm
from lmlab.data.generated.seqgan_oracle import SeqGANOracle
from lmlab.data.generated.vae_synthetic import MEANS, VAESynthetic

ORACLE = SeqGANOracle(vocab=5, length=3, embedding=2, width=3, seed=2)
VAE = VAESynthetic(words=4, length=3, embedding=3, width=5, seed=1)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def oracle_probability(sentence):
    """p(sentence) under the oracle, gate by gate, in float64."""
    p = {name: value.astype(np.float64) for name, value in ORACLE.parameters.items()}
    hidden, cell, previous, total = np.zeros(3), np.zeros(3), 0, 1.0
    for token in sentence:
        i, f, o, g = np.split(np.concatenate([p["embeddings"][previous], hidden]) @ p["kernel"] + p["bias"], 4)
        cell = logistic(f) * cell + logistic(i) * np.tanh(g)
        hidden = logistic(o) * np.tanh(cell)
        total *= softmax(hidden @ p["output_kernel"] + p["output_bias"])[token]
        previous = token
    return total


def vae_probability(sentence, z):
    """p(sentence | z), in PyTorch's shapes, in float64."""
    p = {name: value.astype(np.float64) for name, value in VAE.parameters.items()}
    cell = p["w0"] @ z
    hidden, total = np.tanh(cell), 1 / 4
    for previous, token in itertools.pairwise(sentence):
        read = p["weight_ih"] @ np.concatenate([p["embeddings"][previous], z]) + p["bias_ih"]
        i, f, o, g = np.split(read + p["weight_hh"] @ hidden + p["bias_hh"], 4)
        cell = logistic(f) * cell + logistic(i) * np.tanh(g)
        hidden = logistic(o) * np.tanh(cell)
        total *= softmax(p["w1"] @ hidden + p["w2"] @ z)[token]
    return total


def test_the_oracle_gives_every_sentence_its_probability():
    sentences = np.array(list(itertools.product(range(5), repeat=3)))
    law = np.array([oracle_probability(sentence) for sentence in sentences])
    assert law.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(ORACLE.nats(sentences).sum(axis=1), -np.log(law), rtol=1e-5)


def test_the_oracle_samples_its_law_and_knows_its_entropy():
    sentences = np.array(list(itertools.product(range(5), repeat=3)))
    law = np.array([oracle_probability(sentence) for sentence in sentences])
    count = 5000
    drawn = np.stack([example.ids for example in ORACLE.split("train")[:count]])
    assert (drawn[:, 0] == 0).all() and drawn.dtype == np.int32
    counts = np.bincount(drawn[:, 1:] @ [25, 5, 1], minlength=125)
    likely = law * count > 1
    chi2 = ((counts - law * count) ** 2 / (law * count))[likely].sum()
    assert chi2 < likely.sum() + 5 * np.sqrt(2 * likely.sum())
    known = ORACLE.known()
    entropy, error = (known[f"estimate/entropy_nats_per_token{which}"] for which in ("", "_standard_error"))
    assert error < 0.05 and entropy == pytest.approx(-(law * np.log(law)).sum() / 3, abs=4 * error)


def test_every_parameter_of_the_oracle_is_standard_normal():
    found = SeqGANOracle().parameters
    assert sum(value.size for value in found.values()) == 5000 * 32 + 64 * 128 + 128 + 32 * 5000 + 5000
    for value in found.values():
        assert value.dtype == np.float32
        assert value.mean() == pytest.approx(0, abs=4 / np.sqrt(value.size))
        assert value.std() == pytest.approx(1, abs=3 / np.sqrt(value.size))


def test_the_oracle_at_its_published_size_is_as_surprising_as_the_published_ones():
    known = SeqGANOracle().known()  # authors' weights 5.760; fresh ones 5.82 to 5.98 and uniform tokens 11.17 to 11.27
    assert 5.6 < known["estimate/entropy_nats_per_token"] < 6.2
    uniform = np.random.default_rng(0).integers(0, 5000, (64, 20))
    assert 11.0 < SeqGANOracle().nats(uniform).mean() < 11.6


def test_the_synthetic_corpus_gives_sentences_their_probability_given_z():
    sentences = np.array(list(itertools.product(range(4), repeat=3)))
    z = np.array([0.3, -1.7])
    law = np.array([vae_probability(sentence, z) for sentence in sentences])
    assert law.sum() == pytest.approx(1, rel=1e-12)
    nats = VAE.conditional_nats(sentences, np.broadcast_to(z, (len(sentences), 2)))
    np.testing.assert_allclose(nats, -np.log(law), rtol=1e-4)


def test_the_marginal_by_quadrature_is_that_by_monte_carlo_and_sums_to_one():
    sentences = np.array(list(itertools.product(range(4), repeat=3)))
    marginal = np.exp(-VAE.marginal_nats(sentences))
    assert marginal.sum() == pytest.approx(1, abs=1e-3)  # the grid holds .99996 of the prior
    z = VAE.latents(np.random.default_rng(7), 20_000)
    for k in (0, 21, 63):
        sampled = np.exp(-VAE.conditional_nats(sentences[k : k + 1], z))
        assert marginal[k] == pytest.approx(sampled.mean(), abs=4 * sampled.std() / np.sqrt(len(z)))


def test_the_synthetic_corpus_samples_its_law():
    sentences = np.array(list(itertools.product(range(4), repeat=3)))
    law = np.exp(-VAE.marginal_nats(sentences))
    count = 5000
    drawn = np.stack([example.ids for example in VAE.split("train")[:count]])
    assert (drawn[:, 0] == 4).all() and (drawn[:, -1] == 5).all() and VAE.vocab == 6
    counts = np.bincount(drawn[:, 1:-1] @ [16, 4, 1], minlength=64)
    likely = law * count > 1
    chi2 = ((counts - law * count) ** 2 / (law * count))[likely].sum()
    assert chi2 < likely.sum() + 5 * np.sqrt(2 * likely.sum())


def test_latents_are_a_mixture_of_four_gaussians():
    z = VAE.latents(np.random.default_rng(3), 50_000)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(z.T), [[5, 0], [0, 5]], atol=0.1)  # unit, and that of the means
    nearest = ((z[:, None] - MEANS) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / len(z), 0.25, atol=0.01)


def test_the_generator_has_the_shapes_and_bounds_of_the_paper():
    found = VAESynthetic().parameters
    shapes = {
        "embeddings": (1000, 100), "weight_ih": (400, 102), "weight_hh": (400, 100), "bias_ih": (400,),
        "bias_hh": (400,), "w0": (100, 2), "w1": (1000, 100), "w2": (1000, 2),
    }  # fmt: skip
    assert {name: value.shape for name, value in found.items()} == shapes
    for name, value in found.items():
        bound = 5 if name == "w2" else 1
        assert abs(value).max() <= bound and value.std() == pytest.approx(bound / np.sqrt(3), rel=0.12)
    assert [len(VAESynthetic().split(name)) for name in ("train", "valid", "test")] == [16_000, 2000, 2000]


def test_the_logistic_function_does_not_overflow():
    with np.errstate(all="raise"):
        hidden, cell = lstm.step(np.float32([[-1e4] * 3 + [1e4] * 3 + [1e4] * 6]), np.ones((1, 3), np.float32))
    assert (cell == 1).all() and hidden == pytest.approx(np.tanh(1.0))
