"""The evidence lower bound of texts with a latent vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import Gaussian, LatentLM, LossOutput, Schedule, TokenBatch
from lmlab.errors import ConfigError
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.ranges import Fraction, Natural, NonNegative
from lmlab.registry import losses


@losses.register("elbo")
@dataclass(frozen=True)
class ELBO:
    """-log p(text | z) + beta KL(q(z | text) || N(0, I)) with one z drawn from q (Kingma & Welling 2014), in nats.

    A row is one text: its tokens and the target of the last of them, which the encoder reads; the decoder predicts
    every target of a weight. z is drawn at every call; in an evaluation (no keys) it is a function of the row's
    content, `beta` is what it is at the last step, no bits are free and no words are dropped.

    Needs: LatentLM, and a batch of `tokens`, `targets` and `weights` (0 where nothing is to be predicted).
    Metrics: `nats` (the negative ELBO, beta 1, per token), `reconstruction_nats_per_text`, `kl_nats_per_text`, `beta`.

    Args:
      special_ids: ids that stand for no text (given by the data).
      steps: length of the run (given by the program).
      beta: weight of the KL term: a number (Higgins et al. 2017), or a function of the step: `ramp` and `sigmoid`
        (Bowman et al. 2016), `cyclical` (Fu et al. 2019), or any other schedule.
      free_bits: nats of KL that cost nothing (Kingma et al. 2016, arXiv:1606.04934, appendix C.8, for each text and
        not for the mean of a minibatch): max(free_bits, KL).
      free_bits_of: what may have so many: each `dimension` of z, or each `text`.
      word_dropout: probability that the decoder reads `dropped_id` instead of a token (Bowman et al. 2016, section
        3.1); the first token of a row, which opens it, is always read.
      dropped_id: what stands for a dropped token; None: the tokenizer's `unknown`, else its `mask`.
      per: what the sum over a batch is divided by: the number of its `token`s, or of its `text`s.

    Raises:
      ConfigError: words are to be dropped, and no id is known that could stand for them.
    """

    needs: ClassVar[type] = LatentLM
    reads: ClassVar[type] = TokenBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out", "latent_report")
    TINY: ClassVar[str] = "elbo.word_dropout = 0.3\nelbo.dropped_id = 1\nelbo.free_bits = 0.01"

    special_ids: Mapping[str, int]
    steps: int
    beta: NonNegative | Schedule = 1.0
    free_bits: NonNegative = 0.0
    free_bits_of: Literal["dimension", "text"] = "dimension"
    word_dropout: Fraction = 0.0
    dropped_id: Natural | None = None
    per: Literal["token", "text"] = "token"

    def __post_init__(self) -> None:
        off = isinstance(self.word_dropout, int | float) and self.word_dropout == 0
        if not off and self._dropped is None:
            raise ConfigError(
                "elbo.word_dropout needs an id that stands for a dropped word, and there is none for 'unknown' or "
                "'mask'. Name one: elbo.dropped_id = ..., or add 'mask' to the tokenizer's specials."
            )

    def __call__(
        self, model: LatentLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; `keys` draw z and the words that are dropped, and switch the model's dropout on."""
        posterior = posterior_of(model, batch, keys)
        drawing = content_keys(batch["tokens"]) if keys is None else keys_for(keys, "latent")
        latent = drawn(posterior, drawing)
        read = batch if keys is None else {**batch, "tokens": self._with_words_dropped(batch["tokens"], keys)}
        kl, counted = divergence(posterior), texts(batch)
        reconstruction = (nats_given(model, read, latent, keys) * counted).sum()
        divergences = (kl.sum(1) * counted).sum()
        beta = self._beta(step, keys is None)
        charged = divergences if keys is None else (self._charged(kl) * counted).sum()
        tokens, count = batch["weights"].astype(jnp.float32).sum(), counted.sum()
        return LossOutput(
            reconstruction + beta * charged,
            tokens if self.per == "token" else count,
            {
                "nats": (reconstruction + divergences, tokens),
                "reconstruction_nats_per_text": (reconstruction, count),
                "kl_nats_per_text": (divergences, count),
                "beta": (beta * count, count),
            },
        )

    @property
    def _dropped(self) -> int | None:
        if self.dropped_id is not None:
            return self.dropped_id
        return self.special_ids.get("unknown", self.special_ids.get("mask"))

    def _beta(self, step: Int[Array, ""], evaluating: bool) -> Float[Array, ""]:
        value = self.beta(jnp.asarray(self.steps - 1) if evaluating else step) if callable(self.beta) else self.beta
        return jnp.asarray(value, jnp.float32)

    def _charged(self, kl: Float[Array, "B Z"]) -> Float[Array, " B"]:
        """The KL term of each text, less what is free."""
        if self.free_bits_of == "dimension":
            return jnp.maximum(kl, self.free_bits).sum(1)
        return jnp.maximum(kl.sum(1), self.free_bits)

    def _with_words_dropped(self, tokens: Int[Array, "B T"], keys: Key[Array, " B"]) -> Int[Array, "B T"]:
        if self._dropped is None:
            return tokens
        rate, length = jnp.asarray(self.word_dropout, jnp.float32), tokens.shape[1]
        draw = jax.vmap(lambda key: jax.random.bernoulli(key, rate, (length,)))
        gone = draw(keys_for(keys, "word dropout")) & (jnp.arange(length) > 0)
        return jnp.where(gone, self._dropped, tokens)


class WholeText(NamedTuple):
    """What an encoder reads: the tokens of a row and, behind them, the target of the last one."""

    tokens: Int[Array, "B T+1"]
    segment_ids: Int[Array, "B T+1"]


def whole_text(batch: Mapping[str, Array]) -> WholeText:
    """A TokenBatch's rows as whole texts.

    Example (`<s>` 1, `</s>` 2):
      tokens  = [1, 7, 9, 0]    tokens of the text = [1, 7, 9, 2, 0]
      targets = [7, 9, 2, 0]    segment_ids        = [1, 1, 1, 1, 0]
      weights = [1, 1, 1, 0]
    """
    tokens, targets, weights = batch["tokens"], batch["targets"], batch["weights"]
    there = batch.get("segment_ids")
    there = jnp.ones_like(tokens) if there is None else (there != 0).astype(jnp.int32)
    length = there.sum(1)
    last = jnp.maximum(length - 1, 0)[:, None]
    final = jnp.take_along_axis(jnp.where(weights > 0, targets, -1), last, 1)[:, 0]
    final = jnp.where(length > 0, final, -1)  # -1: nothing is to be predicted there, so that nothing is known
    place = jnp.arange(tokens.shape[1] + 1) == length[:, None]
    widened = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens, there))
    ids, read = (jnp.where(place, new[:, None], old) for old, new in zip(widened, (final, final >= 0), strict=True))
    return WholeText(jnp.maximum(ids, 0), read.astype(jnp.int32))


def posterior_of(model: LatentLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None) -> Gaussian:
    """q(z | text) of each row of a TokenBatch, float32."""
    text = whole_text(batch)
    found = model.posterior(text.tokens, segment_ids=text.segment_ids, keys=keys)
    return Gaussian(*(part.astype(jnp.float32) for part in found))


def texts(batch: Mapping[str, Array]) -> Float[Array, " B"]:
    """1 for each row in which something is to be predicted: the others fill up a batch."""
    return (batch["weights"] > 0).any(1).astype(jnp.float32)


def drawn(posterior: Gaussian, keys: Key[Array, " B"]) -> Float[Array, "B Z"]:
    """One z of each row's posterior, a differentiable function of it."""
    noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:]))(keys)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


def divergence(posterior: Gaussian) -> Float[Array, "B Z"]:
    """KL(q || N(0, 1)) of each dimension: (mean² + variance - log variance - 1) / 2."""
    mean, log_variance = posterior
    return 0.5 * (mean**2 + jnp.expm1(log_variance) - log_variance)


def nats_given(
    model: LatentLM, batch: Mapping[str, Array], latent: Float[Array, "B Z"], keys: Key[Array, " B"] | None
) -> Float[Array, " B"]:
    """-log p(text | z) of each row: the weighted sum of its targets'."""
    hidden, _ = model.hidden_given(batch["tokens"], latent, segment_ids=batch.get("segment_ids"), keys=keys)
    logits = model.project(hidden.reshape(-1, hidden.shape[-1]))
    chosen = jnp.arange(logits.shape[-1]) == batch["targets"].reshape(-1, 1)  # a masked sum: no scatter backwards
    nats = jax.nn.logsumexp(logits, -1) - jnp.where(chosen, logits, 0).sum(-1)
    return (nats.reshape(batch["weights"].shape) * batch["weights"]).sum(1)
