"""SeqGAN's synthetic task: sentences of an LSTM with random parameters, which then judges a model's own sentences."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated import lstm
from lmlab.data.generated.drawing import SPLITS, Drawn
from lmlab.ranges import Count
from lmlab.registry import datasets

SAMPLED = 128  # sentences behind the estimates of `known`
START = 0  # the id before the first token, which is an ordinary one too, as in the authors' code


@datasets.register("seqgan_oracle")
@dataclass(frozen=True, kw_only=True)
class SeqGANOracle(Drawn):
    """Sentences of an LSTM whose every parameter is drawn from N(0, 1) (Yu et al. 2017, arXiv:1609.05473, section 5).

    Sampled at temperature 1 from the start token 0. The parameters are float32 from `numpy.random.default_rng(seed)`,
    in this order: embeddings (V, E), kernel (E + D, 4·D) with the gates i, f, o and the candidate side by side, its
    bias, the output's kernel (D, V) and bias; they are not the authors' draw, and draws differ by about 0.15 nats.

    Yields `TokenSequence` of ids (length + 1,) int32: the start token and the sentence; targets are the next ids. The
    paper trains on 10,000 sentences: `train_examples` = 10,000, as `experiments/data/seqgan_oracle.gin` has it.
    `nats` is the paper's NLL_oracle. It rewards a model that repeats few good sentences: report the model's NLL on
    the test split beside it (Caccia et al. 2020, arXiv:1811.02549). The sums run in the order of the machine's BLAS,
    so that once in about 10^6 tokens another machine may draw another one.

    Args:
      seed: of the parameters and of the sentences.
      train_examples: number of training sentences; a smaller number is the beginning of a greater one.
      valid_examples: number of validation sentences.
      test_examples: number of test sentences.
      vocab: V.
      length: tokens of a sentence; 20 or 40 in the papers.
      embedding: width of the oracle's embeddings, E.
      width: of its LSTM, D.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    seqgan_oracle.vocab = 11
    seqgan_oracle.length = 7
    seqgan_oracle.embedding = 3
    seqgan_oracle.width = 5
    seqgan_oracle.train_examples = 101
    seqgan_oracle.valid_examples = 17
    seqgan_oracle.test_examples = 19
    """

    train_examples: Count = 10_000
    vocab: Count = 5000
    length: Count = 20
    embedding: Count = 32
    width: Count = 32

    @functools.cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """The oracle's parameters, float32: embeddings, kernel, bias, output_kernel, output_bias."""
        random = np.random.default_rng(self.seed)
        shapes = {
            "embeddings": (self.vocab, self.embedding),
            "kernel": (self.embedding + self.width, 4 * self.width),
            "bias": (4 * self.width,),
            "output_kernel": (self.width, self.vocab),
            "output_bias": (self.vocab,),
        }
        return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One sentence."""
        ids, state = [START], self._initial(())
        for uniform in random.random(self.length).tolist():
            logits, state = self._read(np.int64(ids[-1]), state)
            ids.append(lstm.draw(logits, uniform))
        return TokenSequence(np.array(ids, np.int32), source=source)

    def nats(self, sentences: np.ndarray) -> np.ndarray:
        """-log p(x_t | x_<t) under the oracle; the mean over what a model has written is its NLL_oracle.

        Args:
          sentences: ids (N, T) without the start token.

        Returns:
          (N, T) float64.
        """
        nats, state, previous = [], self._initial((len(sentences),)), np.full(len(sentences), START)
        for tokens in sentences.T:
            logits, state = self._read(previous, state)
            log_law = lstm.log_softmax(logits.astype(np.float64))
            nats.append(-np.take_along_axis(log_law, tokens[:, None], axis=1)[:, 0])
            previous = tokens
        return np.stack(nats, axis=1)

    def known(self) -> dict[str, float]:
        """The uniform law's loss; the oracle's own entropy, estimated from sampled sentences. Nats per token.

        The estimate sums the entropies of the next token after sampled beginnings, which scatters less than -log p.
        """
        random = np.random.default_rng([self.seed, 1 + len(SPLITS)])
        state, previous = self._initial((SAMPLED,)), np.full(SAMPLED, START)
        entropies = np.zeros(SAMPLED)
        for _ in range(self.length):
            logits, state = self._read(previous, state)
            log_law = lstm.log_softmax(logits.astype(np.float64))
            entropies -= (np.exp(log_law) * log_law).sum(axis=1) / self.length
            previous = np.array([lstm.draw(row, u) for row, u in zip(log_law, random.random(SAMPLED), strict=True)])
        return {
            "chance/nats_per_token": float(np.log(self.vocab)),
            "estimate/entropy_nats_per_token": float(entropies.mean()),
            "estimate/entropy_nats_per_token_standard_error": float(entropies.std(ddof=1) / np.sqrt(SAMPLED)),
        }

    def _initial(self, batch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        zeros = np.zeros((*batch, self.width), np.float32)
        return zeros, zeros

    def _read(self, tokens: Any, state: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, Any]:
        """Logits of what follows `tokens`, and the state after them."""
        found, (hidden, cell) = self.parameters, state
        hidden, cell = lstm.step(self._inputs[tokens] + hidden @ found["kernel"][self.embedding :], cell)
        return hidden @ found["output_kernel"] + found["output_bias"], (hidden, cell)

    @functools.cached_property
    def _inputs(self) -> np.ndarray:
        """What each token adds to the gates, (V, 4·D)."""
        found = self.parameters
        return found["embeddings"] @ found["kernel"][: self.embedding] + found["bias"]
