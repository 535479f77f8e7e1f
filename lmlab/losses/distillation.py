"""Learning from what another model finds probable: knowledge distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import LossOutput, Model, Spec
from lmlab.losses.autoregressive import NextTokenSums
from lmlab.losses.cross_entropy import sums_in_pieces, sums_over_chosen
from lmlab.losses.mlm import MaskedLM
from lmlab.nn.linear import Linear, normal
from lmlab.ranges import Fraction, Natural, NonNegative, Positive
from lmlab.registry import losses

PROJECTION_STD = 0.02
"""Of the initial weights of the layer between states of different widths."""


class Lesson(NamedTuple):
    """Sums over positions of what a student differs by from its teacher."""

    kl: Float[Array, ""]
    distance: Float[Array, ""]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What learning from a teacher adds to a loss of targets."""

    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out",)
    HOOKS: ClassVar[tuple[str, ...]] = ()

    teacher: Annotated[Spec, Model]
    run: str
    run_step: Natural | None = None
    temperature: Positive = 2.0
    alpha: Fraction = 0.5
    hidden_weight: NonNegative | None = None

    def make_head(self, width: int, rngs: nnx.Rngs, teacher_width: int) -> Linear | None:
        """The matrix from the student's states to the teacher's, where one is needed."""
        if self.hidden_weight is None or width == teacher_width:
            return None
        return Linear(width, teacher_width, normal(PROJECTION_STD), bias=False, rngs=rngs)

    def lesson(
        self,
        model: Any,
        logits: Float[Array, "N V"],
        states: Float[Array, "N D"],
        theirs: Float[Array, "N E"],
        weights: Float[Array, " N"],
    ) -> Lesson:
        """How far the student's logits and states are from the teacher's, of which the states are given."""
        taught = jax.lax.stop_gradient(model.teacher.project(theirs))
        kl = (divergence(taught / self.temperature, logits / self.temperature) * weights).sum()
        if self.hidden_weight is None:
            return Lesson(kl, jnp.zeros(()))
        ours = states if model.task_head is None else model.task_head(states)
        return Lesson(kl, (cosine_distance(ours, theirs) * weights).sum())

    def mixed(self, targets: LossOutput, lesson: Lesson) -> LossOutput:
        """The loss of targets with what the teacher adds."""
        total = self.alpha * self.temperature * self.temperature * lesson.kl + (1 - self.alpha) * targets.total
        metrics = {**targets.metrics, "kl": (lesson.kl, targets.weight)}
        if self.hidden_weight is not None:
            total = total + self.hidden_weight * lesson.distance
            metrics["cosine_distance"] = (lesson.distance, targets.weight)
        return LossOutput(total, targets.weight, metrics)


@losses.register("distillation")
@dataclass(frozen=True, kw_only=True)
class Distillation(Taught, NextTokenSums):
    """The divergence from a teacher's next-token probabilities, mixed with the loss of the targets, in nats.

    Hinton et al. 2015 (arXiv:1503.02531, section 2): at every predicted position

        alpha · τ² · KL(softmax(teacher / τ) ‖ softmax(student / τ)) + (1 - alpha) · autoregressive

    where τ² keeps the gradient's size while the temperature τ changes. With `hidden_weight`, 1 - cos of the last states
    is added (Sanh et al. 2019, arXiv:1910.01108, section 3, there over all tokens); where widths differ, the student's
    state goes through a learned matrix first (Jiao et al. 2020, arXiv:1909.10351, equation 8). The teacher drops
    nothing, and does not learn: its parameters are arguments of the step and part of every checkpoint.

    Needs: CausalLM, of the student and of the teacher, and a batch as that of `autoregressive`.
    Metrics: those of `autoregressive`, of the student; per target, `kl` at the temperature and, with `hidden_weight`,
    `cosine_distance`.

    Example:
      distillation.teacher = @teacher/gpt
      teacher/gpt.layers = 12          # as in the run
      distillation.run = 'runs/big'

    Args:
      teacher: the teacher's model, as its run has it.
      run: the run folder that the teacher's parameters are read from, before the first step only. Its tokenizer must
        be this run's, and its `seq_len` too, where the teacher has learned positions.
      run_step: which of its checkpoints (None: the newest).
      temperature: τ.
      alpha: share of the teacher; at 1 the targets are not learned from.
      hidden_weight: of the states' distance (DistilBERT: 1, beside 5 for the teacher and 2 for the targets); None
        leaves it out.
      label_smoothing, z_loss: of the targets' loss, see `autoregressive`.
      chunk: see `autoregressive`; of the teacher's logits no more are held either.
    """

    TINY: ClassVar[str] = """
    distillation.teacher = @teacher/lstm
    distillation.run = '{run of lstm by autoregressive}'
    distillation.hidden_weight = 0.5
    """

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; `keys` switches the student's dropout on."""
        given = {"positions": batch.get("positions"), "segment_ids": batch.get("segment_ids")}
        states = model.hidden(batch["tokens"], **given, keys=keys)[0]
        theirs = jax.lax.stop_gradient(model.teacher.hidden(batch["tokens"], **given)[0])

        def part(states: Array, theirs: Array, targets: Array, weights: Array) -> tuple[LossOutput, Lesson]:
            flat = (x.reshape(-1, *x.shape[2:]) for x in (states, theirs, targets, weights))
            states, theirs, targets, weights = flat
            logits = model.project(states)
            return self.terms(logits, targets, weights), self.lesson(model, logits, states, theirs, weights)

        weights = batch["weights"].astype(jnp.float32)
        return self.mixed(*sums_in_pieces(part, self.chunk, states, theirs, batch["targets"], weights))


@losses.register("mlm_distillation")
@dataclass(frozen=True, kw_only=True)
class MaskedDistillation(Taught, MaskedLM):
    """The divergence from a teacher's probabilities of masked tokens, mixed with `mlm`, in nats (DistilBERT).

    As `distillation`, at the tokens that were masked, of which teacher and student read the same; Sanh et al. 2019
    (arXiv:1910.01108, section 3) take the states' distance at all tokens.

    Needs: BidirectionalLM, of the student and of the teacher, and a batch as that of `mlm`.
    Metrics: those of `mlm`, of the student; per chosen token, `kl` and, with `hidden_weight`, `cosine_distance`.

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data).
      teacher, run, run_step, temperature, alpha, hidden_weight: see `distillation`.
      rate, keep, random, whole_words, span, chunk: see `mlm`.

    Raises:
      ConfigError: as `mlm`.
    """

    TINY: ClassVar[str] = """
    experiment.dataset = @hmm_source
    mlm_distillation.teacher = @teacher/bilstm
    mlm_distillation.run = '{run of bilstm by mlm}'
    mlm_distillation.hidden_weight = 0.5
    """

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the chosen tokens; `keys` choose them, and switch the student's dropout on."""
        tokens, chosen = self.masked(batch, keys)
        states = model.encode(tokens, segment_ids=batch["segment_ids"], keys=keys)
        theirs = jax.lax.stop_gradient(model.teacher.encode(tokens, segment_ids=batch["segment_ids"]))

        def part(there: Array, states: Array, theirs: Array, ids: Array) -> tuple[tuple[Array, Array], Lesson]:
            there, states, theirs, ids = (x.reshape(-1, *x.shape[2:]) for x in (there, states, theirs, ids))
            logits, weights = model.project(states), there.astype(jnp.float32)
            return self.terms(logits, ids, there), self.lesson(model, logits, states, theirs, weights)

        sums, lesson = sums_over_chosen(part, chosen, states, theirs, batch["tokens"], size=self.chunk)
        return self.mixed(self.output(sums, batch, chosen), lesson)


def divergence(taught: Float[Array, "N V"], logits: Float[Array, "N V"]) -> Float[Array, " N"]:
    """KL(softmax(taught) ‖ softmax(logits)) of each row, in nats."""
    wanted, found = jax.nn.log_softmax(taught), jax.nn.log_softmax(logits)
    return (jnp.exp(wanted) * (wanted - found)).sum(-1)


def cosine_distance(one: Float[Array, "N D"], other: Float[Array, "N D"]) -> Float[Array, " N"]:
    """1 - cos of the angle between the vectors of each row, float32."""
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    lengths = jnp.square(one).sum(-1) * jnp.square(other).sum(-1)
    return 1 - (one * other).sum(-1) * jax.lax.rsqrt(lengths + 1e-12)  # whose gradient is finite at 0
