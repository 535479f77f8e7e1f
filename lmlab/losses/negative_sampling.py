"""Telling a word's neighbours from noise: skip-gram and CBOW of word2vec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import LossOutput, TokenBatch, WordVectors
from lmlab.errors import DataError
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.ranges import Count, NonNegative, Positive
from lmlab.registry import losses


class Drawn(NamedTuple):
    """What was drawn of a batch.

    Attributes:
      words: the words that subsampling kept, at the front of each row.
      kept: how many there are.
      pairs: `pairs[b, i, j]`: word j stands in the window around word i.
      noise: N words for each word, from the noise distribution.
    """

    words: Int[Array, "B T"]
    kept: Int[Array, " B"]
    pairs: Bool[Array, "B T T"]
    noise: Int[Array, "B T N"]


@losses.register("negative_sampling")
@dataclass(frozen=True)
class NegativeSampling:
    """Negative sampling (Mikolov et al. 2013, arXiv:1310.4546, equation 4), in nats summed over what is predicted.

    With v a word's vector and u a context's, for a word w and every word c within a window around it:
      skip_gram  -log σ(v_w · u_c) - Σ over k words n of the noise distribution of log σ(-v_w · u_n), per pair (w, c)
      cbow       the same with the mean of v_c over the window, and with u_w in the place of u_c, per word w

    As in the authors' code: windows have a radius uniform in 1 … `window`, anew for each word; noise has probabilities
    proportional to count^0.75; frequent words are left out before windows are formed, a word of relative frequency f
    being kept with probability √(t / f) + t / f (the paper has √(t / f)); words are never paired over the end of a
    document, and ids that stand for no text, the unknown word among them, are left out everywhere. Unlike there, noise
    may hit the word that it is noise to, as in the equation; and the gradient of a CBOW window is that of its mean.

    Where `skip_gram` is at its optimum, v_w · u_c = log(p(w, c) / (p(w) q(c))) - log k for the noise distribution q: a
    shifted pointwise mutual information (Levy & Goldberg 2014).

    Windows lie within a row, and all of its pairs are formed by one (T, T) product: rows should be at most some 1,000
    words long, as in the authors' code. What is drawn is a function of each row's key, in an evaluation of its content.

    Needs: WordVectors, and a batch of `tokens` with `targets` and `weights`; the words are the targets of weight above
    0, of which a split has each one once.
    Metrics: `nats` and, of them, `noise_nats` (per pair, or per word of CBOW), and the share `kept` of the words.

    Example (one row, window 1, nothing left out):
      targets = [5, 7, 9, 0]      # 0 ends a document
      pairs   = (5, 7), (7, 5), (7, 9), (9, 7)

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data).
      counts: how often each id is to be predicted in the training split (given by the data; counted at the first call).
      context: `skip_gram` or `cbow`.
      window: largest radius of a window.
      negatives: k; 5 to 20 for small training sets, 2 to 5 for large ones.
      shared: draw k words for each word, not for each of its pairs: the same expectation for a fraction of the work (Ji
        et al. 2016, arXiv:1604.04661, share them in another way). In CBOW there is no difference.
      power: of the counts, in the noise distribution.
      subsample: t; None keeps every word. 1e-5 in the paper, 1e-3 in the authors' code; the smaller the more words are
        left out.
    """

    needs: ClassVar[type] = WordVectors
    reads: ClassVar[type] = TokenBatch
    TINY: ClassVar[str] = """
    negative_sampling.window = 2
    negative_sampling.negatives = 3
    negative_sampling.subsample = 0.3
    """

    vocab: int
    special_ids: Mapping[str, int]
    counts: Callable[[], np.ndarray]
    context: Literal["skip_gram", "cbow"] = "skip_gram"
    window: Count = 5
    negatives: Count = 5
    shared: bool = False
    power: NonNegative = 0.75
    subsample: Positive | None = 1e-3

    def __call__(
        self, model: WordVectors, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the pairs, or over the words of CBOW; `keys` draw windows, noise and what is left out."""
        drawn = self.drawn(batch, content_keys(batch["tokens"]) if keys is None else keys_for(keys, "contexts"))
        nats, noise, weight = self.sums(model, drawn)
        kept = drawn.kept.sum(dtype=jnp.float32), self._words(batch)[1].sum(dtype=jnp.float32)
        metrics = {"nats": (nats + noise, weight), "noise_nats": (noise, weight), "kept": kept}
        return LossOutput(nats + noise, weight, metrics)

    def drawn(self, batch: Mapping[str, Array], keys: Key[Array, " B"]) -> Drawn:
        """Which words are kept, which of them are pairs, and the noise."""
        time, keep = batch["targets"].shape[1], self._keep()
        draws = self.negatives * (1 if self.shared or self.context == "cbow" else 2 * self.window)
        places = jnp.arange(time)
        distance = jnp.abs(places[:, None] - places)

        def row(key: Array, ids: Array, there: Array, segments: Array) -> Drawn:
            keeping, sizing, drawing = jax.random.split(key, 3)
            kept = there & (jax.random.uniform(keeping, (time,)) < keep[ids])
            front = jnp.where(kept, jnp.cumsum(kept) - 1, time)  # behind the row, where nothing is written
            words, segments = (jnp.zeros(time, jnp.int32).at[front].set(x, mode="drop") for x in (ids, segments))
            radius = jax.random.randint(sizing, (time,), 1, self.window + 1)
            near = (distance > 0) & (distance <= radius[:, None])
            pairs = near & (segments[:, None] == segments) & (segments > 0)
            return Drawn(words, kept.sum(), pairs, self._noise(drawing, (time, draws)))

        return jax.vmap(row)(keys, *self._words(batch))

    def sums(self, model: WordVectors, drawn: Drawn) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """Nats of what was to be found, nats of the noise, and the number of predictions."""
        inputs, outputs = model.vectors_of(drawn.words), model.context_vectors_of(drawn.words)
        pairs = drawn.pairs.astype(jnp.float32)
        around = pairs.sum(-1)
        if self.context == "skip_gram":
            scores = jnp.einsum("bid,bjd->bij", inputs, outputs, preferred_element_type=jnp.float32)
            nats, weights = (jax.nn.softplus(-scores) * pairs).sum(), around
        else:
            mean = jnp.einsum("bij,bjd->bid", pairs.astype(inputs.dtype), inputs, preferred_element_type=jnp.float32)
            inputs = (mean / jnp.maximum(around, 1)[..., None]).astype(inputs.dtype)
            scores = jnp.einsum("bid,bid->bi", inputs, outputs, preferred_element_type=jnp.float32)
            weights = (around > 0).astype(jnp.float32)
            nats = (jax.nn.softplus(-scores) * weights).sum()
        return nats, self._noise_nats(model, inputs, drawn.noise, weights), weights.sum()

    def _noise_nats(
        self,
        model: WordVectors,
        inputs: Float[Array, "B T D"],
        noise: Int[Array, "B T N"],
        weights: Float[Array, "B T"],
    ) -> Float[Array, ""]:
        """-Σ log σ(-v · u) of the noise: k draws for each prediction, or k that count for all of a word's."""
        scores = jnp.einsum(
            "bid,bind->bin", inputs, model.context_vectors_of(noise), preferred_element_type=jnp.float32
        )
        each = jnp.broadcast_to(weights[..., None], scores.shape)
        if noise.shape[-1] > self.negatives:
            each = (jnp.arange(noise.shape[-1]) < self.negatives * each).astype(jnp.float32)
        return (jax.nn.softplus(scores) * each).sum()

    def _words(self, batch: Mapping[str, Array]) -> tuple[Int[Array, "B T"], Bool[Array, "B T"], Int[Array, "B T"]]:
        """Ids, which of them are words, and the number of each one's document, from 1 on."""
        ids, there = batch["targets"], batch["weights"] > 0
        ends = there & (ids == self.special_ids.get("end_of_text", -1))
        rows = batch.get("segment_ids", jnp.zeros_like(ids))
        segments = 1 + jnp.cumsum(ends, axis=1) + rows * (ids.shape[1] + 1)
        special = jnp.zeros(self.vocab, bool).at[jnp.array(list(self.special_ids.values()), jnp.int32)].set(True)
        return ids, there & ~special[ids], segments.astype(jnp.int32)

    def _keep(self) -> Float[Array, " V"]:
        """The probability that each word is kept: at least 1 of those that are rare enough."""
        if self.subsample is None:
            return jnp.ones(self.vocab)
        counts = self._counts()
        ratio = self.subsample * counts.sum() / jnp.asarray(np.maximum(counts, 1), jnp.float32)
        return jnp.sqrt(ratio) + ratio

    def _noise(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "T N"]:
        """Words from the noise distribution: the inverse of its sums, at uniform numbers."""
        counts = self._counts()
        words = np.flatnonzero(counts)
        xp = np if isinstance(self.power, int | float) else jnp  # once and in float64, unless the power is a tracer
        sums = xp.cumsum(counts[words] ** self.power)
        sums = jnp.asarray(sums / sums[-1], jnp.float32)
        places = jnp.searchsorted(sums, jax.random.uniform(key, shape), side="right")
        return jnp.asarray(words, jnp.int32)[jnp.minimum(places, len(words) - 1)]

    def _counts(self) -> np.ndarray:
        """How often each word occurs, (V,) float64; 0 for ids that stand for no text."""
        counts = np.array(self.counts(), np.float64)
        counts[list(self.special_ids.values())] = 0
        if not counts.any():
            raise DataError("negative_sampling: there is no word to be predicted in the training split.")
        return counts
