"""Perplexity by exact totals: exp(nats of all targets / number of units), never a mean of means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import CausalLM
from lmlab.data import TextTables
from lmlab.errors import ConfigError
from lmlab.evaluation.split_sums import sums_over
from lmlab.losses.autoregressive import Autoregressive
from lmlab.ranges import Count
from lmlab.registry import evaluators
from lmlab.training.carrying import sums_of

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("perplexity")
@dataclass(frozen=True)
class Perplexity:
    """How well a causal model predicts a split: nats per token, bits per byte, perplexity per token, word and byte.

    Targets of weight 0 do not count. Bytes and words are those of the text behind the targets; where the dataset holds
    ids without a text, their metrics are left out. A word is a maximal run of bytes that are not white space,
    and the end of a document is a token (whose nats count) of no bytes and no words, as is usual for `ppl/word`.

    Where the run's loss carries states from batch to batch, they are carried here too, over the whole split or its
    first `batches`: the number that papers give for truncated back-propagation through time. The split is read in as
    many lanes as the global batch has rows, each of which begins with nothing read; with a batch of 1, it is one text.

    Metrics, each named `<split>/...`: `nats` and `tokens` (totals), `nats_per_token`, `ppl/token`, `bits_per_byte`,
    `ppl/word`, `ppl/byte`; and `unknown`, the number of targets that the tokenizer does not know, where it can be
    that it does not. Where the ids do not stand for every byte of the text (such targets, or a tokenizer that loses
    case or spaces), the bytes and words behind the targets are scaled by the split's own ratio of those of its text to
    those of its ids: exact for a whole split, and as good as the sample for a part of it.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
      chunk: project so many positions of each row at a time, where the logits of a batch are too large; None is all.
    """

    TINY: ClassVar[str] = "perplexity.batches = 3"

    split: str = "valid"
    batches: Count | None = 20
    chunk: Count | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the model is not a CausalLM, or `batches` is below 1.
          DataError: the dataset has no such split, or there is nothing to predict in it.
        """
        if not isinstance(program.abstract_model, CausalLM):
            raise ConfigError(
                f"the evaluator 'perplexity' needs a CausalLM; the model '{program.experiment.model.name}' is none. "
                "Choose other evaluators: experiment.evaluators = [...]   (lmlab list evaluators)"
            )
        return _Measurement(self, program)


class _Measurement:
    """The evaluator at work on one program."""

    def __init__(self, settings: Perplexity, program: Program) -> None:
        self._split, self._data = settings.split, program.one_dataset
        unknown = getattr(program.tokenizer, "unknown", None)

        carries = program.carry_of(program.loss) is not None
        loss: Any = Autoregressive(chunk=settings.chunk, carry=carries)

        def sums(params: Params, batch: Mapping[str, Array], carry: Any) -> tuple[dict[str, Array], Any]:
            model, tables = program.model.bind(params), self._data.text_tables
            return _carried_totals(model, batch, carry, tables, unknown, loss)

        self._sums = sums_over(program, settings.split, settings.batches, sums, loss)

    def __call__(self, state: State) -> dict[str, float]:
        """The metrics of the state's averaged parameters, where it has such, else of its parameters."""
        summed = {name: value.item() for name, value in self._sums(state).items()}
        for name, scale in zip(("bytes", "words"), self._data.scales(self._split), strict=True):
            if name in summed:
                summed[name] *= scale
        return {f"{self._split}/{name}": value for name, value in measures(**summed).items()}


def totals(
    model: CausalLM,
    batch: Mapping[str, Array],
    tables: TextTables | None,
    unknown: int | None = None,
    chunk: int | None = None,
) -> dict[str, Array]:
    """Sums over a batch: `nats` (float32); `tokens` and, where they are known, `bytes`, `words`, `unknown` (int32).

    Args:
      model: a causal model.
      batch: a TokenBatch.
      tables: bytes and words behind ids, for text.
      unknown: the id that stands for what the tokenizer does not know, if it has one.
      chunk: see `Autoregressive`.
    """
    return _carried_totals(model, batch, None, tables, unknown, Autoregressive(chunk=chunk))[0]


def _carried_totals(
    model: CausalLM,
    batch: Mapping[str, Array],
    carry: Any,
    tables: TextTables | None,
    unknown: int | None,
    loss: Any,
) -> tuple[dict[str, Array], Any]:
    """`totals`, and what the rows carry on."""
    counted = batch["weights"] > 0
    weighed = {**batch, "weights": counted.astype(jnp.float32)}
    output, carry = sums_of(loss, model, weighed, carry, None, jnp.zeros((), jnp.int32))
    sums = {"nats": output.metrics["nats"][0], "tokens": jnp.sum(counted, dtype=jnp.int32)}
    if tables is not None:
        tables = jax.tree.map(jnp.asarray, tables)
        words = tables.words(batch["tokens"], batch["targets"])
        sums["bytes"] = jnp.sum(jnp.where(counted, tables.bytes[batch["targets"]], 0), dtype=jnp.int32)
        sums["words"] = jnp.sum(jnp.where(counted, words, 0), dtype=jnp.int32)
    if unknown is not None:
        sums["unknown"] = jnp.sum(counted & (batch["targets"] == unknown), dtype=jnp.int32)
    return sums, carry


def measures(
    nats: float, tokens: float, bytes: float = 0, words: float = 0, unknown: float | None = None
) -> dict[str, float]:
    """The metrics that totals come to; those of a unit that does not occur are left out."""
    metrics = {"nats": nats, "tokens": tokens}
    if unknown is not None:
        metrics["unknown"] = unknown
    if tokens:
        metrics |= {"nats_per_token": nats / tokens, "ppl/token": exp(nats / tokens)}
    if bytes:
        metrics |= {"bits_per_byte": nats / bytes / math.log(2), "ppl/byte": exp(nats / bytes)}
    if words:
        metrics["ppl/word"] = exp(nats / words)
    return metrics


def exp(x: float) -> float:
    """e to the power of x; infinite beyond the range of floats, where `math.exp` raises."""
    with np.errstate(over="ignore"):
        return float(np.exp(x))
