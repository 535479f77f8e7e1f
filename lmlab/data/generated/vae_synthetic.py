"""The synthetic corpus on which text VAEs are seen to collapse: sentences of an LSTM with a latent variable."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated import lstm
from lmlab.data.generated.drawing import SPLITS, Drawn
from lmlab.ranges import Count, Seed
from lmlab.registry import datasets

MEANS = np.array([(-2.0, -2.0), (2.0, 2.0), (-2.0, 2.0), (2.0, -2.0)])  # of the mixture's components
EDGE, SPACING = 6.0, 0.2  # of the quadrature's grid, which holds .99996 of the prior
SAMPLED = 256  # sentences behind the estimates of `known`

State = tuple[np.ndarray, np.ndarray]


@datasets.register("vae_synthetic")
@dataclass(frozen=True, kw_only=True)
class VAESynthetic(Drawn):
    """Sentences of 10 words from an LSTM that reads a latent z in the plane (He et al. 2019, arXiv:1901.05534).

    z has a mixture of 4 equal Gaussians of unit covariance with means (±2, ±2). c0 = W0·z, h0 = tanh(c0); the LSTM
    reads [embedding of the last word; z]; logits = W1·h + W2·z; no biases but the LSTM's two. The first word is
    uniform, the other nine are sampled. The parameters have the shapes of the authors' PyTorch modules and are
    uniform in (-1, 1), W2 in (-5, 5).

    It is not the authors' draw, which needs the random numbers of PyTorch 0.3: numbers come from
    `numpy.random.default_rng(seed)` in the order embeddings, weight_ih, weight_hh, bias_ih, bias_hh, W0, W1, W2, are
    float32, and every sentence has a generator of its own. Counts and laws are theirs: 16,000 / 2,000 / 2,000. As in
    the SeqGAN oracle, another machine's BLAS may turn one word in about 10^6.

    Yields `TokenSequence` of ids (length + 2,) int32: `vocab` - 2 opens a sentence and `vocab` - 1 ends it; targets
    are the next ids, 11 of them.

    Args:
      seed: of the parameters and of the sentences.
      train_examples: number of training sentences; a smaller number is the beginning of a greater one.
      valid_examples: number of validation sentences.
      test_examples: number of test sentences.
      words: V of the generator; `vocab` is V + 2.
      length: words of a sentence.
      embedding: width of the embeddings.
      width: of the LSTM, D.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    vae_synthetic.words = 11
    vae_synthetic.length = 5
    vae_synthetic.embedding = 3
    vae_synthetic.width = 7
    vae_synthetic.train_examples = 101
    vae_synthetic.valid_examples = 17
    vae_synthetic.test_examples = 19
    """

    seed: Seed = 19950927
    train_examples: Count = 16_000
    valid_examples: Count = 2000
    test_examples: Count = 2000
    words: Count = 1000
    length: Count = 10
    embedding: Count = 100
    width: Count = 100

    @property
    def vocab(self) -> int:
        """Number of ids: the words, the beginning and the end of a sentence."""
        return self.words + 2

    @functools.cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """The generator's parameters, float32, in PyTorch's shapes (out, in); the gates i, f, o, g are side by side."""
        random = np.random.default_rng(self.seed)
        gates = 4 * self.width
        shapes = {
            "embeddings": (self.words, self.embedding),
            "weight_ih": (gates, self.embedding + 2),
            "weight_hh": (gates, self.width),
            "bias_ih": (gates,),
            "bias_hh": (gates,),
            "w0": (self.width, 2),
            "w1": (self.words, self.width),
            "w2": (self.words, 2),
        }
        bounds = {"w2": 5.0}
        return {
            name: random.uniform(-bounds.get(name, 1.0), bounds.get(name, 1.0), shape).astype(np.float32)
            for name, shape in shapes.items()
        }

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One sentence."""
        z = self.latents(random, 1)[0]
        words, state = [int(random.integers(self.words))], self._initial(z)
        for uniform in random.random(self.length - 1).tolist():
            logits, state = self._read(np.int64(words[-1]), z, state)
            words.append(lstm.draw(logits, uniform))
        return TokenSequence(np.array([self.words, *words, self.words + 1], np.int32), source=source)

    def latents(self, random: np.random.Generator, count: int) -> np.ndarray:
        """z from its prior, (count, 2) float32."""
        means = MEANS[random.integers(len(MEANS), size=count)]
        return (means + random.standard_normal((count, 2))).astype(np.float32)

    def conditional_nats(self, sentences: np.ndarray, z: np.ndarray) -> np.ndarray:
        """-log p(sentence | z), (N,) float64.

        Args:
          sentences: words (N, T) or, for the same sentence under every z, (1, T).
          z: (N, 2).
        """
        z = z.astype(np.float32)
        nats, state = np.full(len(z), math.log(self.words)), self._initial(z)
        for read, following in zip(sentences.T, sentences.T[1:], strict=False):
            logits, state = self._read(read, z, state)
            picked = np.take_along_axis(logits, np.broadcast_to(following, len(z))[:, None], axis=1)[:, 0]
            peak = logits.max(axis=1)
            nats += peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1, dtype=np.float64)) - picked
        return nats

    def marginal_nats(self, sentences: np.ndarray, spacing: float = SPACING) -> np.ndarray:
        """-log p(sentence), by quadrature over z, (N,) float64. About 0.5 s a sentence.

        Half the spacing moves sentences by at most 0.04 and their mean by 0.001 nats (16 sentences).

        Args:
          sentences: words (N, T), without the ids that open and end a sentence.
          spacing: of the grid on [-6, 6]².
        """
        z, log_weights = _grid(spacing)
        return np.array([-_log_sum_exp(log_weights - self.conditional_nats(row[None], z)) for row in sentences])

    def known(self) -> dict[str, float]:
        """The loss of the uniform law and, estimated, the entropy given z, which no NLL is below. In nats.

        The end of a sentence is certain and adds nothing. The exact floor on the test split is what `marginal_nats`
        gives; it takes too long to be here.
        """
        random = np.random.default_rng([self.seed, 1 + len(SPLITS)])
        z = self.latents(random, SAMPLED)
        words, state = random.integers(self.words, size=SAMPLED), self._initial(z)
        entropies = np.full(SAMPLED, math.log(self.words))
        for _ in range(self.length - 1):
            logits, state = self._read(words, z, state)
            log_law = lstm.log_softmax(logits.astype(np.float64))
            entropies -= (np.exp(log_law) * log_law).sum(axis=1)
            words = np.array([lstm.draw(row, u) for row, u in zip(log_law, random.random(SAMPLED), strict=True)])
        return {
            "chance/nats_per_sentence": self.length * math.log(self.words),
            "entropy/first_word_nats": math.log(self.words),
            "estimate/entropy_given_z_nats_per_sentence": float(entropies.mean()),
            "estimate/entropy_given_z_nats_per_sentence_standard_error": float(
                entropies.std(ddof=1) / math.sqrt(SAMPLED)
            ),
        }

    def _initial(self, z: np.ndarray) -> State:
        cell = z @ self.parameters["w0"].T
        return np.tanh(cell), cell

    def _read(self, words: np.ndarray | np.int64, z: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits of what follows `words`, and the state after them."""
        found, (hidden, cell) = self.parameters, state
        gates = self._inputs[words] + z @ found["weight_ih"][:, self.embedding :].T + hidden @ found["weight_hh"].T
        hidden, cell = lstm.step(gates, cell)
        return hidden @ found["w1"].T + z @ found["w2"].T, (hidden, cell)

    @functools.cached_property
    def _inputs(self) -> np.ndarray:
        """What each word adds to the gates, (V, 4·D)."""
        found = self.parameters
        return found["embeddings"] @ found["weight_ih"][:, : self.embedding].T + found["bias_ih"] + found["bias_hh"]


def _grid(spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a square lattice, (G, 2), and log(prior · area) at each."""
    ticks = np.arange(-EDGE, EDGE + spacing / 2, spacing)
    z = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    squares = ((z[:, None] - MEANS) ** 2).sum(axis=-1)
    prior = np.exp(-squares / 2).mean(axis=1) / (2 * math.pi)
    return z, np.log(prior * spacing**2)


def _log_sum_exp(values: np.ndarray) -> float:
    peak = values.max()
    return float(peak + np.log(np.exp(values - peak).sum()))
