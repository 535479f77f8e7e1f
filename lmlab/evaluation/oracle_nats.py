"""How likely what a model writes is under the law that its data were drawn from: SeqGAN's NLL_oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import CausalLM, Ref, Sampler
from lmlab.errors import ConfigError
from lmlab.generation.decoding import advance, begin
from lmlab.ranges import Count, Seed
from lmlab.registry import evaluators
from lmlab.training.randomness import EVALUATION, row_keys, stream_key

if TYPE_CHECKING:
    from jaxtyping import Array, Int, Key

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("oracle_nats")
@dataclass(frozen=True)
class OracleNats:
    """-log p under the dataset's own law of texts that the model draws, per token (Yu et al. 2017, section 5).

    Each text follows the first token of a row of a split and has that row's length. Of a model that has learned the
    law it is the law's entropy; below that, the model writes what is more likely than usual. So it rewards a model that
    repeats few good texts, and one that has overfitted: always report the model's own nats on held-out texts beside
    it, the evaluator `perplexity` (Caccia et al. 2020, arXiv:1811.02549). A sampler of another temperature gives
    another point of the curve of both, which the model's own nats of that temperature belong to.

    Metrics: `<split>/oracle_nats_per_token` and its standard error over texts, `.../oracle_nats_standard_error`; and
    `<split>/oracle_impossible`, the share of texts with a token that the law never gives, which the former leave out.

    Args:
      split: whose rows texts begin as.
      samples: number of texts; the split's rows serve again and again. 10,000 in the paper.
      seed: of the texts.
      sampler: how tokens are chosen; as it is, from the model's own law.
    """

    TINY: ClassVar[str] = """
    oracle_nats.samples = 37
    experiment.dataset = @seqgan_oracle
    """

    split: str = "valid"
    samples: Count = 1000
    seed: Seed = 0
    sampler: Sampler = Ref("sample")  # type: ignore[assignment]

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the model is not a CausalLM, or the dataset's law is not known.
          DataError: the dataset has no such split, or there is nothing to predict in it.
        """
        law = program.data.nats
        if law is None or not isinstance(program.abstract_model, CausalLM):
            raise ConfigError(
                "the evaluator 'oracle_nats' needs a dataset that knows the law of its sequences, and a CausalLM; the "
                f"dataset is '{program.data.name}', the model '{program.experiment.model.name}'. "
                "Choose other evaluators: experiment.evaluators = [...]   (lmlab list evaluators)"
            )
        texts = _Texts(self, program)

        def measure(state: State) -> dict[str, float]:
            found = [_scores(law(tokens), there) for tokens, there in texts.of(state)]
            scores, impossible = (np.concatenate(parts) for parts in zip(*found, strict=True))
            scores = scores[~impossible]
            measured = {"oracle_impossible": float(impossible.mean())}
            if len(scores):
                measured["oracle_nats_per_token"] = float(scores.mean())
            if len(scores) > 1:
                measured["oracle_nats_standard_error"] = float(scores.std(ddof=1) / np.sqrt(len(scores)))
            return {f"{self.split}/{name}": value for name, value in measured.items()}

        return measure


def _scores(nats: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean nats of each text's tokens, (N,) float64, and whether one of them is infinite."""
    nats = np.where(there, nats, 0.0)
    return nats.sum(1) / there.sum(1), ~np.isfinite(nats).all(1)


class _Texts:
    """What the model of a program writes after the first tokens of a split's rows."""

    def __init__(self, settings: OracleNats, program: Program) -> None:
        self._settings, self._program = settings, program
        self._rows = program.data.split(settings.split)
        self._compiled: Callable[..., dict[str, np.ndarray]] | None = None

    def of(self, state: State) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batch by batch, the ids (N, T) and which of them belong to the texts, until there are so many texts."""
        partitioner, size = self._program.partitioner, self._program.experiment.global_batch_size
        missing, mine, turn = self._settings.samples, partitioner.rows(size), 0
        while missing > 0:
            batch = self._rows.batch(turn % len(self._rows), mine)
            numbers = (turn * size + np.array(mine)).astype(np.int32)
            placed = partitioner.place({"tokens": batch["tokens"], "weights": batch["weights"], "number": numbers})
            found = jax.device_get(self._compile()(state, placed))
            there = found["weights"] > 0
            kept = np.flatnonzero(there.any(1))[:missing]
            yield found["tokens"][kept], there[kept]
            missing, turn = missing - len(kept), turn + 1

    def _compile(self) -> Callable[..., dict[str, np.ndarray]]:
        """The program for one batch."""
        if self._compiled is None:
            batch = {name: self._program.abstract_batch[name] for name in ("tokens", "weights")}
            numbers = jax.ShapeDtypeStruct((self._program.experiment.global_batch_size,), jnp.int32)
            self._compiled = self._program.compile_rows(self._write, {**batch, "number": numbers})
        return self._compiled

    def _write(self, params: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
        model = self._program.model.bind(params)
        keys = row_keys(stream_key(self._settings.seed, EVALUATION), batch["number"])
        tokens = written(model, batch["tokens"][:, 0], batch["tokens"].shape[1], self._settings.sampler, keys)
        return {"tokens": tokens, "weights": batch["weights"]}


def written(
    model: CausalLM, first: Int[Array, " B"], length: int, sampler: Sampler, keys: Key[Array, " B"]
) -> Int[Array, "B N"]:
    """What a causal model writes after `first`, N = `length` ids; row b draws from keys[b]. For traced functions."""
    rows = first.shape[0]
    tokens = jnp.zeros((rows, length + 1), jnp.int32).at[:, 0].set(first)
    one = jnp.ones(rows, jnp.int32)
    state = begin(tokens, one, one * (length + 1), jnp.int32(0), jnp.uint32(0))
    state = state._replace(keys=keys, cache=model.init_cache(rows, length))
    return advance(model, state, length, sampler, None).tokens[:, 1:]
