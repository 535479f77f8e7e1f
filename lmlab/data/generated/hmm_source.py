"""Sequences of a random hidden Markov model: a corpus for which the best possible losses can be worked out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated import hidden_markov
from lmlab.data.generated.drawing import ENDLESS, SPLITS, Drawn, random_at
from lmlab.data.generated.hidden_markov import HiddenMarkov
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Positive, Seed
from lmlab.registry import datasets

SAMPLED = 2048  # sequences behind the estimates of `known`
RATE = 0.15  # of positions that a masked language model is asked about
_NGRAM_NUMBERS = 1 << 20  # joint probabilities that are worth enumerating for `known`


@datasets.register("hmm_source")
@dataclass(frozen=True, kw_only=True)
class HMMSource(Drawn):
    """Sequences of a hidden Markov model with random parameters, for losses that are compared with their optimum.

    The rows of the transition and emission matrices are Dirichlet, drawn from `numpy.random.default_rng(seed)` in this
    order, with 2 % of the uniform law mixed in; the first state has the stationary law. No source but lmlab's own.

    Yields `TokenSequence` of ids (length + 1,) int32: the id `symbols` opens the row, so that the first symbol is
    predicted too; no targets, which are thus the next ids. The id `symbols + 1` never occurs: it is there for masks.

    With the defaults the exact entropies are 3.0805 (unigram), 2.4275 (bigram) and 2.1971 (trigram) nats per token, the
    optimum of a next-token loss is 2.159, that of a masked language model at 15 % 1.759 per masked token (1.638 per
    selected token where 80 % are masked, 10 % kept and 10 % replaced), and the bound of absorbing diffusion
    (arXiv:2406.07524) is at its optimum the next-token one. `experiments/data/hmm_source.gin` is this.

    Args:
      seed: of the model's parameters and of the sequences.
      train_examples: number of training sequences; a smaller number is the beginning of a greater one.
      valid_examples: number of validation sequences.
      test_examples: number of test sequences.
      states: K.
      symbols: V; `vocab` is V + 2.
      length: symbols of a sequence, L.
      concentration: of the Dirichlet laws; the smaller, the more predictable.
      begin: whether the id `symbols` opens every row. Without it there is nothing to predict the first symbol from.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    hmm_source.states = 3
    hmm_source.symbols = 5
    hmm_source.length = 7
    hmm_source.train_examples = 101
    hmm_source.valid_examples = 17
    hmm_source.test_examples = 19
    """

    seed: Seed = 1
    train_examples: Count = ENDLESS
    valid_examples: Count = 1000
    test_examples: Count = 1000
    states: Count = 16
    symbols: Count = 32
    length: Count = 64
    concentration: Positive = 0.05
    begin: bool = True

    @property
    def vocab(self) -> int:
        """Number of ids: the symbols, the beginning of a row, and the mask."""
        return self.symbols + 2

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids that are no symbols, by role."""
        return {"begin": self.symbols, "mask": self.symbols + 1}

    @functools.cached_property
    def model(self) -> HiddenMarkov:
        """The hidden Markov model."""
        return HiddenMarkov.random(self.states, self.symbols, self.concentration, self.seed)

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One sequence."""
        symbols = self.model.sample(random, self.length)
        return TokenSequence(np.insert(symbols, 0, self.symbols) if self.begin else symbols, source=source)

    def sequences(self, split: str, count: int) -> np.ndarray:
        """The symbols of the first `count` examples of a split, (count, L): for the functions of `hidden_markov`."""
        return np.stack([self.model.sample(random_at(self.seed, split, i), self.length) for i in range(count)])

    def nats(self, sequences: np.ndarray) -> np.ndarray:
        """-log p(x_t | x_1 ... x_t-1) of what follows the id that opens a row: the exact law.

        Args:
          sequences: ids (N, T).

        Returns:
          (N, T) float64; infinite at ids that are no symbols, and 0 behind the first of them in its row.

        Raises:
          ConfigError: no id opens the rows.
        """
        if not self.begin:
            raise ConfigError(
                "hmm_source.begin = False: a law of what follows the first symbol is not given. Set True."
            )
        strange = np.cumsum(sequences >= self.symbols, axis=1)
        nats = hidden_markov.autoregressive_nats(self.model, np.where(strange, 0, sequences))
        return np.where(strange == 0, nats, np.where((strange == 1) & (sequences >= self.symbols), np.inf, 0.0))

    def known(self) -> dict[str, float]:
        """Entropies of n-grams, exact; optima, estimated from sampled sequences, with their standard errors. In nats.

        `autoregressive_optimum` is over the positions that these rows predict: with `begin`, all of them.
        """
        orders = [n for n in (1, 2, 3) if self.states * self.symbols**n <= _NGRAM_NUMBERS]
        exact = hidden_markov.conditional_entropies(self.model, orders[-1]) if orders else []
        names = ("unigram", "bigram", "trigram")
        return {
            **{f"entropy/{name}_nats_per_token": nats for name, nats in zip(names, exact, strict=False)},
            "chance/nats_per_token": float(np.log(self.symbols)),
            **self.optima(SAMPLED),
        }

    def optima(self, count: int) -> dict[str, float]:
        """The optima of `known`, estimated from `count` sequences that are in no split."""
        random = np.random.default_rng([self.seed, 1 + len(SPLITS)])
        sequences = np.stack([self.model.sample(random, self.length) for _ in range(count)])
        selected = random.random(sequences.shape) < RATE
        seen = hidden_markov.corrupt(random, sequences, selected, self.symbols)
        forward = hidden_markov.autoregressive_nats(self.model, sequences)[:, 0 if self.begin else 1 :]
        masked = hidden_markov.masked_nats(self.model, sequences, selected)
        corrupted = hidden_markov.corrupted_nats(self.model, sequences, seen, selected, RATE)
        return {
            **_estimate("autoregressive_optimum_nats_per_token", forward, np.ones(forward.shape)),
            **_estimate("masked_15_optimum_nats_per_masked_token", masked, selected),
            **_estimate("masked_15_80_10_10_optimum_nats_per_selected_token", corrupted, selected),
        }


def _estimate(name: str, nats: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """A ratio of sums over sequences (rows), and its standard error by the delta method."""
    total, weight = nats.sum(axis=1), weights.sum(axis=1)
    if not weight.any():
        return {}
    mean = total.sum() / weight.sum()
    error = np.sqrt(((total - mean * weight) ** 2).sum()) / weight.sum()
    return {f"estimate/{name}": float(mean), f"estimate/{name}_standard_error": float(error)}
