"""The hook `prior_samples`: what a text VAE writes of latent vectors from its prior, while it is being trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from lmlab.contracts import LatentLM, Ref, Sampler
from lmlab.errors import ConfigError
from lmlab.generation.hook import sheet
from lmlab.generation.writing import Author, local
from lmlab.ranges import Count, Natural, Seed
from lmlab.registry import hooks
from lmlab.training.files import replace_text
from lmlab.training.randomness import GENERATION, row_keys, stream_key
from lmlab.training.state import averaged_params

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from lmlab.nn.functional import ModelDef, Params
    from lmlab.training.run import Run
    from lmlab.training.state import State


@hooks.register("prior_samples")
@dataclass(frozen=True)
class PriorSamples:
    """Writes texts of z ~ N(0, I) to `samples/<step>.txt` in the run folder, and shows the last ones at the end.

    Args:
      every: steps between samples (0: only at the end).
      count: number of texts; each has a z of its own, the same at every step.
      opening: what every text begins with; "" is the beginning of a document. Without a tokenizer, ids as numbers.
      length: the most tokens to add.
      seed: of the latent vectors and of the tokens.
      sampler: how tokens are chosen.
    """

    TINY: ClassVar[str] = """
    experiment.model = @text_vae
    experiment.loss = @elbo
    prior_samples.every = 2
    prior_samples.length = 5
    """

    every: Natural = 0
    count: Count = 5
    opening: str = ""
    length: Count = 256
    seed: Seed = 0
    sampler: Sampler = Ref("sample")  # type: ignore[assignment]

    def bind(self, run: Run) -> Callable[[int, State, bool], None]:
        """Prepares for a run; ConfigError where the model is not a LatentLM."""
        program = run.program
        if not isinstance(program.abstract_model, LatentLM):
            raise ConfigError(
                f"the hook 'prior_samples' needs a LatentLM; the model '{program.experiment.model.name}' is none. "
                "Take it out: experiment.hooks = []"
            )
        told = Told(program.model, prior(self.count, width(program.model), self.seed))
        author = Author(program, self.sampler, told)

        def hook(step: int, state: State, last: bool) -> None:
            if last or (self.every and step % self.every == 0):
                params = local(averaged_params(program.partitioner.export(state)))
                openings = [self.opening] * self.count
                written = author.write(params, openings, length=self.length, seed=self.seed)
                text = sheet(openings, written, self.count)
                if jax.process_index() == 0:
                    replace_text(run.files.samples / f"{step}.txt", text)
                    if last:
                        print(text, flush=True)

        return hook


def prior(count: int, latent: int, seed: int) -> Float[Array, "B Z"]:
    """Vectors from N(0, I): each a function of the seed and of its number."""
    keys = row_keys(stream_key(seed, f"{GENERATION}/latent"), jnp.arange(count))
    return jax.vmap(lambda key: jax.random.normal(key, (latent,)))(keys)


def width(model: ModelDef[Any]) -> int:
    """Z, found without computing anything."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(lambda params: model.bind(params).posterior(tokens).mean, model.shapes).shape[-1]


class Told:
    """A LatentLM whose rows have been told their z, as a causal model's definition.

    Args:
      model: a LatentLM's definition.
      latents: z of each row.
    """

    def __init__(self, model: ModelDef[Any], latents: Float[Array, "B Z"]) -> None:
        self.model, self.latents = model, latents
        self.shapes, self.roles = model.shapes, model.roles

    def bind(self, params: Params | Mapping[str, Any]) -> _Bound:
        """The causal model with these parameters."""
        return _Bound(self.model.bind(params), self.latents)

    def apart(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters block by block; see `ModelDef.apart`."""
        return self.model.apart(params)


class _Bound:
    """A CausalLM, of as many rows as there are latent vectors."""

    def __init__(self, model: LatentLM, latents: Float[Array, "B Z"]) -> None:
        self._model, self._latents = model, latents
        self.project, self.init_cache = model.project, model.init_cache

    def hidden(self, tokens: Array, **given: Any) -> tuple[Array, Any]:
        return self._model.hidden_given(tokens, self._latents, **given)
