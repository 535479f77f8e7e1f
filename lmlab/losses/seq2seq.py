"""A target given its source: what encoder-decoders are trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import EncoderDecoder, LossOutput, Memory, PairBatch
from lmlab.losses.cross_entropy import at_ids, in_pieces, is_argmax, is_zero
from lmlab.nn.randomness import keys_for
from lmlab.ranges import Count, Fraction, ProperFraction
from lmlab.registry import losses


class _Sums(NamedTuple):
    """Sums over positions: of the loss, the nats and the hits, weighted; and the misses of each row, (B,)."""

    total: Float[Array, ""]
    nats: Float[Array, ""]
    right: Float[Array, ""]
    misses: Float[Array, " B"]


@losses.register("seq2seq")
@dataclass(frozen=True)
class Seq2Seq:
    """Cross-entropy of a target given its source, -log p(w_t | w_<t, source), in nats summed over the batch.

    Needs: EncoderDecoder, and a batch of pairs.
    Metrics: `nats` (without smoothing) and `accuracy`, each with the sum of the weights; and
    `sequence_accuracy/teacher_forced`, the share of rows of which every prediction is right, each after the target's
    own tokens, among the rows that read those.

    Example (one row, `<pad>` = 0, 2 ends a text):
      source_tokens = [8, 6, 2, 0]
      tokens        = [2, 5, 7, 0]
      targets       = [5, 7, 2, 0]
      weights       = [1, 1, 1, 0]      # 5 after the source, 7 after 5, the end after 7

    Args:
      label_smoothing: share of each target given to all ids alike, in [0, 1) (arXiv:1512.00567, section 7).
      teacher_forcing: probability that a row reads the target's own tokens; another row reads what the model itself
        finds most probable, token after token, in all its length (0.5 in Lake & Baroni 2018, arXiv:1711.00350). Nothing
        is dropped when these tokens are found, and no gradient goes through them. Evaluations read the target's.
      chunk: project so many positions of each row at a time, and again in the backward pass; None all at once.
    """

    needs: ClassVar[type] = EncoderDecoder
    reads: ClassVar[type] = PairBatch
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"chunk"})
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out", "exact_match")
    TINY: ClassVar[str] = "seq2seq.teacher_forcing = 0.5\nexperiment.dataset = @tsv_pairs"

    label_smoothing: ProperFraction = 0.0
    teacher_forcing: Fraction = 1.0
    chunk: Count | None = None

    def __call__(
        self, model: EncoderDecoder, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the batch; `keys` switches the model's dropout on, and decides which rows read the target."""
        tokens, weights = batch["tokens"], batch["weights"].astype(jnp.float32)
        taught = jnp.ones(len(tokens), bool)
        if keys is not None and not _is_one(self.teacher_forcing):
            taught = _drawn(keys_for(keys, "teacher_forcing"), self.teacher_forcing)
            tokens = jnp.where(taught[:, None], tokens, greedy_inputs(model, batch))
        memory = model.encode_source(batch["source_tokens"], segment_ids=batch["source_segment_ids"], keys=keys)
        hidden, _ = model.decode(tokens, memory, keys=keys)
        sums = self._sums(model.project, hidden, batch["targets"], weights)
        weight, asked = weights.sum(), (taught & (weights > 0).any(1)).astype(jnp.float32)
        metrics = {
            "nats": (sums.nats, weight),
            "accuracy": (sums.right, weight),
            "sequence_accuracy/teacher_forced": (((sums.misses == 0) * asked).sum(), asked.sum()),
        }
        return LossOutput(sums.total, weight, metrics)

    def _sums(
        self,
        project: Callable[[Array], Array],
        hidden: Float[Array, "B T D"],
        targets: Int[Array, "B T"],
        weights: Float[Array, "B T"],
    ) -> _Sums:
        """Over all positions, or over one chunk of them after the other."""
        if self.chunk is None:
            return self._part(project, hidden, targets, weights)

        def turn(sums: _Sums, piece: tuple[Array, Array, Array]) -> tuple[_Sums, None]:
            return jax.tree.map(jnp.add, sums, self._part(project, *piece)), None

        pieces = tuple(in_pieces(x, self.chunk) for x in (hidden, targets, weights))
        zero = jnp.zeros(())
        zeros = _Sums(zero, zero, zero, jnp.zeros(len(targets)))
        return jax.lax.scan(jax.checkpoint(turn, prevent_cse=False), zeros, pieces)[0]

    def _part(self, project: Callable[[Array], Array], hidden: Array, targets: Array, weights: Array) -> _Sums:
        logits, ids = project(hidden.reshape(-1, hidden.shape[-1])), targets.reshape(-1)
        log_z, at_target = jax.nn.logsumexp(logits, -1), at_ids(logits, ids)
        total = nats = log_z - at_target
        if not is_zero(self.label_smoothing):
            total = total + self.label_smoothing * (log_z - logits.mean(-1) - nats)
        right = is_argmax(logits, at_target, ids).reshape(targets.shape)
        misses = (~right & (weights > 0)).sum(1).astype(jnp.float32)
        flat = weights.reshape(-1)
        return _Sums((total * flat).sum(), (nats * flat).sum(), (right * weights).sum(), misses)


def greedy_inputs(model: Any, batch: Mapping[str, Array]) -> Int[Array, "B T"]:
    """What the decoder reads if every token but the first is the most probable one after those before it.

    Nothing is dropped, and nothing of it has a gradient. It goes on behind an end of text as behind any other token.

    Args:
      model: an EncoderDecoder.
      batch: a PairBatch, of whose targets only the first input and the length are looked at.
    """
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, jax.lax.stop_gradient(state))
    memory: Memory = model.encode_source(batch["source_tokens"], segment_ids=batch["source_segment_ids"])
    time = batch["tokens"].shape[1]

    def read(at: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        token, cache = at
        hidden, cache = model.decode(token[:, None], memory, cache=cache)
        return (jnp.argmax(model.project(hidden[:, 0]), -1).astype(token.dtype), cache), token

    first = (batch["tokens"][:, 0], model.init_decoding(memory, time))
    return jax.lax.scan(read, first, None, length=time)[1].swapaxes(0, 1)


def _drawn(keys: Key[Array, " B"], probability: Any) -> Bool[Array, " B"]:
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)


def _is_one(number: Any) -> bool:
    """Whether a number is known to be one before anything is traced."""
    return isinstance(number, int | float) and number == 1
