"""How a text VAE uses its latent vector: KL, active units, mutual information, importance-weighted bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import Gaussian, LatentLM
from lmlab.errors import ConfigError
from lmlab.losses.elbo import divergence, drawn, nats_given, posterior_of, texts
from lmlab.nn.randomness import content_keys
from lmlab.ranges import Count, NonNegative, Seed
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    from lmlab.nn.functional import Params
    from lmlab.training.program import Compiled, Program
    from lmlab.training.state import State

IN_FLIGHT = 16
"""Batches computed before their rows are fetched."""


@evaluators.register("latent_report")
@dataclass(frozen=True)
class LatentReport:
    """What a LatentLM's posterior says of each text of a split, and bounds on the texts' likelihood.

    A text's bounds are formed of the same `samples` draws z_k ~ q(z | x), with w_k = p(x | z_k) p(z_k) / q(z_k | x).
    The negative ELBO is -mean log w_k, the importance-weighted bound -log mean w_k (Burda et al. 2016,
    arXiv:1509.00519, equation 8): never above it, and down to the true NLL as K grows. What is drawn for a text is a
    function of its content.

    Metrics, each named `<split>/...`, means over the texts: `elbo_nats_per_text`, `iw<K>_nats_per_text` and
    `iw<K>_ppl/token` (K is `samples`), `kl_nats_per_text` (the closed form), `active_units` (dimensions of which the
    posterior's mean has a variance over the texts above `active_above`; Burda et al. 2016, section 5.2) and
    `mutual_information_nats` (between text and z under q: mean KL less the KL of the aggregated posterior, Hoffman &
    Johnson 2016, as He et al. 2019 estimate it; the aggregated posterior is that of all texts measured, so that the
    estimate is at most the log of their number).

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
      samples: K, draws per text.
      active_above: variance of a posterior mean above which a dimension is active.
      seed: of the draws behind the mutual information, one for each text.
    """

    TINY: ClassVar[str] = """
    experiment.model = @text_vae
    experiment.loss = @elbo
    latent_report.batches = 2
    latent_report.samples = 3
    """

    split: str = "valid"
    batches: Count | None = 20
    samples: Count = 16
    active_above: NonNegative = 0.01
    seed: Seed = 0

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the model is not a LatentLM.
          DataError: the dataset has no such split, or there is nothing to predict in it.
        """
        if not isinstance(program.abstract_model, LatentLM):
            raise ConfigError(
                f"the evaluator 'latent_report' needs a LatentLM; the model '{program.experiment.model.name}' is none. "
                "Choose other evaluators: experiment.evaluators = [...]   (lmlab list evaluators)"
            )
        program.one_dataset.split(self.split)
        return _Measurement(self, program)


class Rows(NamedTuple):
    """What is measured of each text of a batch, float32; `counted` is 0 in rows that fill it up."""

    counted: Float[Array, " B"]
    tokens: Float[Array, " B"]
    elbo: Float[Array, " B"]
    weighted: Float[Array, " B"]
    kl: Float[Array, " B"]
    mean: Float[Array, "B Z"]
    log_variance: Float[Array, "B Z"]


def measured_rows(model: LatentLM, batch: Mapping[str, Array], samples: int) -> Rows:
    """The rows of a TokenBatch, by a loop over the draws: one at a time is held."""
    posterior, keys = posterior_of(model, batch, None), content_keys(batch["tokens"])

    def draw(sums: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        log_weight = _log_weight(model, batch, posterior, jax.vmap(jax.random.fold_in, (0, None))(keys, k))
        return (sums[0] + log_weight, jnp.logaddexp(sums[1], log_weight)), None

    rows = len(batch["tokens"])
    start = (jnp.zeros(rows), jnp.full(rows, -jnp.inf))
    (total, log_total), _ = jax.lax.scan(draw, start, jnp.arange(samples))
    tokens = batch["weights"].astype(jnp.float32).sum(1)
    weighted = jnp.log(samples) - log_total
    return Rows(texts(batch), tokens, -total / samples, weighted, divergence(posterior).sum(1), *posterior)


def _log_weight(
    model: LatentLM, batch: Mapping[str, Array], posterior: Gaussian, keys: Key[Array, " B"]
) -> Float[Array, " B"]:
    """log p(x | z) p(z) / q(z | x) at one z of each row."""
    z = drawn(posterior, keys)
    ratio = 0.5 * (((z - posterior.mean) ** 2) * jnp.exp(-posterior.log_variance) + posterior.log_variance - z**2)
    return ratio.sum(1) - nats_given(model, batch, z, None)


def active_units(mean: np.ndarray, above: float = 0.01) -> int:
    """Dimensions of the posteriors' means (N, Z) that have a variance over the texts greater than `above`."""
    return int((np.asarray(mean, np.float64).var(0) > above).sum())


def mutual_information(mean: np.ndarray, log_variance: np.ndarray, seed: int = 0) -> float:
    """Between a text and z, in nats: the mean of log q(z | x) - log q(z) at one z ~ q(z | x) of each text.

    The first term's expectation is taken exactly, as -entropy; q(z) is the mean of all N texts' posteriors.

    Args:
      mean, log_variance: of each text's posterior, (N, Z).
      seed: of the draws.
    """
    mean, log_variance = (np.asarray(part, np.float64) for part in (mean, log_variance))
    texts, width = mean.shape
    z = mean + np.exp(log_variance / 2) * np.random.default_rng(seed).standard_normal(mean.shape)
    constant = -0.5 * width * np.log(2 * np.pi)
    negative_entropy = constant - 0.5 * (1 + log_variance).sum(1)
    aggregated: np.ndarray = np.empty(texts)
    for n, point in enumerate(z):  # (N, Z) at a time: all pairs at once would not fit
        terms = constant - 0.5 * ((point - mean) ** 2 * np.exp(-log_variance) + log_variance).sum(1)
        aggregated[n] = np.logaddexp.reduce(terms) - np.log(texts)
    return float((negative_entropy - aggregated).mean())


class _Measurement:
    """The evaluator at work on one program."""

    def __init__(self, settings: LatentReport, program: Program) -> None:
        self._settings, self._program = settings, program

    def __call__(self, state: State) -> dict[str, float]:
        """The metrics of the state's averaged parameters, where it has such, else of its parameters."""
        rows, settings = self._rows(state), self._settings
        split, samples = settings.split, settings.samples
        measured: dict[str, float] = {
            "elbo_nats_per_text": float(rows.elbo.mean()),
            f"iw{samples}_nats_per_text": rows.weighted.mean(),
            f"iw{samples}_ppl/token": np.exp(rows.weighted.sum() / rows.tokens.sum()),
            "kl_nats_per_text": rows.kl.mean(),
            "active_units": active_units(rows.mean, settings.active_above),
            "mutual_information_nats": mutual_information(rows.mean, rows.log_variance, settings.seed),
        }
        return {f"{split}/{name}": float(value) for name, value in measured.items()}

    @cached_property
    def _compiled(self) -> Compiled:
        program, samples = self._program, self._settings.samples

        def measure(params: Params, batch: Mapping[str, Array]) -> Rows:
            return measured_rows(program.model.bind(params), batch, samples)

        return program.compile_rows(measure, program.abstract_batch)

    def _rows(self, state: State) -> Any:
        """The rows of the texts that are measured, in float64, in the order of the split."""
        program, settings = self._program, self._settings
        data, partitioner = program.data.split(settings.split), program.partitioner
        own = partitioner.rows(program.experiment.global_batch_size)
        count = len(data) if settings.batches is None else min(len(data), settings.batches)
        found: list[Rows] = []
        waiting: list[Any] = []
        for done in range(count):
            batch = data.batch(done * len(data) // count, own)
            waiting.append(self._compiled(state, partitioner.place(batch)))
            if len(waiting) == IN_FLIGHT or done == count - 1:
                found += jax.device_get(waiting)
                waiting = []
        whole = jax.tree.map(lambda *parts: np.concatenate(parts).astype(np.float64), *found)
        rows = jax.tree.map(lambda x: x[whole.counted > 0], whole)
        # Where all weights are equal, only rounding puts the bound above the ELBO.
        return rows._replace(weighted=np.minimum(rows.weighted, rows.elbo))
