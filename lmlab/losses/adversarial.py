"""Both sides of a text GAN: policy gradient with roll-outs, and the Gumbel-softmax relaxation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import AdversarialLM, LossOutput, Schedule, TokenBatch
from lmlab.losses.cross_entropy import at_ids
from lmlab.losses.writing import Feed, drawn, frozen, relaxed, values
from lmlab.nn.randomness import content_keys, keys_for
from lmlab.ranges import Count, NonNegative, Positive
from lmlab.registry import losses


@losses.register("adversarial")
@dataclass(frozen=True)
class Adversarial:
    """One side of a game between a generator of texts and a discriminator: an experiment has two updates with it.

        experiment.updates = [@generator/update, @discriminator/update]
        generator/update.loss = @generator/adversarial
        generator/update.parameters = ['^generator/']
        generator/adversarial.side = 'generator'

    and so for the discriminator. A row's real text are its targets; the generator writes another of the same length
    after reading the row's first token. Positions of weight 0 are not judged, in either. Written texts depend on the
    generator as it is at the update, and on each row's key; in an evaluation (no keys) on the row's content, at the
    last step's temperature.

    The discriminator minimises the cross-entropy of real and written texts, half of each. The generator:

    `policy_gradient` (SeqGAN, Yu et al. 2017, arXiv:1609.05473): for each written token -log p · Q, in which Q is the
    mean of the discriminator's probability of being real over texts that are completed after that token by the
    generator itself (for the last token, that of the text). Summed over a text, the gradient is an unbiased estimate of
    minus that of the expected probability; both ways of writing are without dropout, so that this is so. The loss is
    per token, where the authors' is a sum over batch and time; and their roll-out policy is a copy of the generator
    that lags behind it (rate 0.8; in their code the embeddings do not), which is left out.

    `gumbel` (Kusner & Hernández-Lobato 2016, arXiv:1611.04051): written texts are relaxed one-hots, for both sides, and
    the generator minimises -log of the discriminator's probability, through them; RelGAN (Nie et al. 2019) lets the
    temperature fall exponentially, which is the schedule `exponential`.

    Needs: AdversarialLM, and a batch of `tokens`, `targets` and `weights`.
    Metrics: of the discriminator `nats` (per text) and `accuracy/real`, `accuracy/written`; of the generator `reward`,
    the mean probability of being real of what it writes, and for `policy_gradient` `entropy_nats`, the mean -log p of
    the tokens that it draws.

    Args:
      steps: length of the run (given by the program).
      side: whose loss this is.
      estimator: of the generator's gradient; both sides have the same.
      rollouts: completions of each beginning, 16 in SeqGAN.
      baseline: what is subtracted from Q: nothing, as in SeqGAN, or the value of the beginning that is one token
        shorter, by roll-outs of its own (`previous`): less variance, the same mean.
      temperature: of relaxed texts, a number or a function of the step.
      feed: what a relaxed text is continued from: its `relaxed` tokens, or the ids `drawn` (as in RelGAN).
      l2: times half the squares of the discriminator's last layer, added to its mean loss. 0.2 in SeqGAN's code for a
        softmax over two classes, which is 0.1 for the one logit that is their difference.
    """

    needs: ClassVar[type] = AdversarialLM
    reads: ClassVar[type] = TokenBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out", "perplexity")
    HOOKS: ClassVar[tuple[str, ...]] = ("samples",)
    TINY: ClassVar[str] = "adversarial.rollouts = 3\nadversarial.l2 = 0.1"

    steps: int
    side: Literal["generator", "discriminator"] = "discriminator"
    estimator: Literal["policy_gradient", "gumbel"] = "policy_gradient"
    rollouts: Count = 16
    baseline: Literal["none", "previous"] = "none"
    temperature: Positive | Schedule = 1.0
    feed: Feed = "relaxed"
    l2: NonNegative = 0.0

    def __call__(
        self, model: AdversarialLM, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; `keys` draw texts, and switch the discriminator's dropout on in its own update."""
        drawing = content_keys(batch["tokens"]) if keys is None else keys
        if self.side == "discriminator":
            return self._of_discriminator(model, batch, drawing, keys, step)
        if self.estimator == "gumbel":
            return self._of_relaxed(model, batch, drawing, self._temperature(step, keys is None))
        return self._of_policy(model, batch, drawing)

    def _of_discriminator(
        self, model: AdversarialLM, batch: Mapping[str, Array], drawing: Array, keys: Array | None, step: Array
    ) -> LossOutput:
        """Cross-entropy over B real and B written texts."""
        there, rows = _judged(batch)
        first, length = batch["tokens"][:, 0], there.shape[1]
        writer, writing = frozen(model), keys_for(drawing, "texts")
        written: Array
        if self.estimator == "gumbel":
            written = relaxed(writer, first, length, writing, self._temperature(step, keys is None), self.feed)
            written = jax.lax.stop_gradient(written)
        else:
            written = drawn(writer, first, length, writing)
        real = jnp.where(there > 0, batch["targets"], 0)
        of = {"real": (real, 1), "written": (written, -1)}
        total, count = jnp.zeros(()), rows.sum()
        metrics: dict[str, tuple[Array, Array]] = {}
        for name, (texts, sign) in of.items():
            own = None if keys is None else keys_for(keys, f"judging {name}")
            logits = sign * model.judge(texts, segment_ids=there, keys=own)
            total += (jax.nn.softplus(-logits) * rows).sum()
            metrics[f"accuracy/{name}"] = ((logits > 0) * rows).sum(), count
        metrics["nats"] = total, 2 * count
        return LossOutput(total + self.l2 * model.judge_penalty() * 2 * count, 2 * count, metrics)

    def _of_policy(self, model: AdversarialLM, batch: Mapping[str, Array], drawing: Array) -> LossOutput:
        """-log p · Q over written tokens."""
        there, rows = _judged(batch)
        first, counted = batch["tokens"][:, 0], _reach(there)
        policy = frozen(model)
        text = drawn(policy, first, there.shape[1], keys_for(drawing, "texts"))
        nats = _nats(model, first, text)

        def reward(texts: Int[Array, "B T"]) -> Float[Array, " B"]:
            return jax.nn.sigmoid(policy.judge(texts, segment_ids=there))

        begin = 0 if self.baseline == "previous" else 1
        found = values(policy, first, text, keys_for(drawing, "roll-outs"), reward, rollouts=self.rollouts, begin=begin)
        last = reward(text)
        following = jnp.concatenate((found[:, 1 - begin :], last[:, None]), 1)
        advantage = jax.lax.stop_gradient(following - found if self.baseline == "previous" else following)
        weight = counted.sum()
        metrics = {"reward": ((last * rows).sum(), rows.sum()), "entropy_nats": ((nats * counted).sum(), weight)}
        return LossOutput((nats * advantage * counted).sum(), weight, metrics)

    def _of_relaxed(
        self, model: AdversarialLM, batch: Mapping[str, Array], drawing: Array, temperature: Array
    ) -> LossOutput:
        """-log of the probability of being real, over relaxed texts."""
        there, rows = _judged(batch)
        writing = keys_for(drawing, "texts")
        written = relaxed(model, batch["tokens"][:, 0], there.shape[1], writing, temperature, self.feed)
        logits = model.judge(written, segment_ids=there)
        count = rows.sum()
        metrics = {"reward": ((jax.nn.sigmoid(logits) * rows).sum(), count)}
        return LossOutput((jax.nn.softplus(-logits) * rows).sum(), count, metrics)

    def _temperature(self, step: Int[Array, ""], evaluating: bool) -> Float[Array, ""]:
        at = jnp.asarray(self.steps - 1) if evaluating else step
        value = self.temperature(at) if callable(self.temperature) else self.temperature
        return jnp.asarray(value, jnp.float32)


def _judged(batch: Mapping[str, Array]) -> tuple[Int[Array, "B T"], Float[Array, " B"]]:
    """1 at the positions of a text that are judged, and 1 for the rows that have such: the others fill up a batch."""
    there = batch["weights"] > 0
    return there.astype(jnp.int32), there.any(1).astype(jnp.float32)


def _reach(there: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """1 up to the last position that is judged: whatever is written before it decides what stands there."""
    return (jnp.cumsum(there[:, ::-1], 1)[:, ::-1] > 0).astype(jnp.float32)


def _nats(model: AdversarialLM, first: Int[Array, " B"], text: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """-log p of each token of a text, differentiable."""
    hidden, _ = model.hidden(jnp.concatenate((first[:, None], text[:, :-1]), 1))
    logits = model.project(hidden.reshape(-1, hidden.shape[-1]))
    return (jax.nn.logsumexp(logits, -1) - at_ids(logits, text.reshape(-1))).reshape(text.shape)
