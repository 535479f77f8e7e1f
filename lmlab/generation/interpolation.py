"""Between two texts: what a text VAE writes of the vectors on a path from one's to the other's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.contracts import LatentLM
from lmlab.errors import ConfigError
from lmlab.generation.decoding import Decoder
from lmlab.generation.prior_samples import Told
from lmlab.generation.writing import ids_of, positions

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.contracts import Sampler
    from lmlab.training.program import Program

PARALLEL = 1e-6
"""The sine below which two vectors lie on one line."""


class Interpolation:
    """The texts between two texts (Bowman et al. 2016, arXiv:1511.06349, section 5).

    The ends of the path are the means of the two texts' posteriors. A text is read as a row of training data that
    holds it: between two ends of text; without a tokenizer it is such a row itself, numbers with spaces between them,
    and a text ends with the number that ends both.

    Args:
      program: of the run.
      sampler: chooses each next token.

    Raises:
      ConfigError: the program's model is not a LatentLM.
    """

    def __init__(self, program: Program, sampler: Sampler) -> None:
        if not isinstance(program.abstract_model, LatentLM):
            raise ConfigError(
                f"only a LatentLM has something between two texts, and the model '{program.experiment.model.name}' is "
                "none. Train one that is, such as experiment.model = @text_vae with experiment.loss = @elbo."
            )
        self._program, self._sampler = program, sampler

    def rows(self, texts: tuple[str, str]) -> list[np.ndarray]:
        """What the encoder reads of each text, 1-d int32.

        Raises:
          DataError: the tokenizer cannot encode a text.
          ConfigError: a text without a tokenizer is not made of ids, or the two do not begin with the same.
        """
        tokenizer, vocab = self._program.tokenizer, self._program.data.vocab
        if tokenizer is not None:
            end = np.array([tokenizer.end_of_text], np.int32)
            return [np.concatenate((end, tokenizer.encode(text), end)) for text in texts]
        rows = [ids_of(text, vocab) for text in texts]
        if any(len(row) == 0 for row in rows) or rows[0][0] != rows[1][0]:
            raise ConfigError(
                "this run's data are ids without a tokenizer: give both texts as whole rows, which begin with the same "
                f"id. These are {texts[0]!r} and {texts[1]!r}."
            )
        return rows

    def ends(self, params: Mapping[str, Array], rows: list[np.ndarray]) -> np.ndarray:
        """The posterior means of two rows, (2, Z) float64."""
        lengths = np.array([len(row) for row in rows])
        there = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.zeros(there.shape, np.int32)
        tokens[there] = np.concatenate(rows)
        model = self._program.model
        read = jax.jit(lambda params, *row: model.bind(params).posterior(row[0], segment_ids=row[1]).mean)
        return np.asarray(read(params, tokens, there.astype(np.int32)), np.float64)

    def write(
        self,
        params: Mapping[str, Array],
        texts: tuple[str, str],
        *,
        steps: int,
        length: int,
        spherical: bool = False,
        seed: int = 0,
    ) -> list[tuple[float, str]]:
        """How far on the way, from 0 to 1, and the text there: of `steps` places, both ends included.

        Args:
          params: path -> array.
          texts: at the ends.
          steps: number of places.
          length: the most tokens of a text.
          spherical: along an arc instead of a line; see `path`.
          seed: of the random numbers.
        """
        rows = self.rows(texts)
        first, last = self.ends(params, rows)
        latents = path(first, last, steps, spherical=spherical)
        tokenizer = self._program.tokenizer
        # A causal model's definition, by its methods.
        told: Any = Told(self._program.model, jnp.asarray(latents, jnp.float32))
        end = int(rows[0][-1]) if rows[0][-1] == rows[1][-1] else None
        decoder = Decoder(told, self._sampler, end_of_text=end, limit=positions(self._program.model))
        written = decoder.complete(params, [rows[0][:1]] * steps, length=length, seed=seed)
        show = _numbers if tokenizer is None else tokenizer.decode
        return list(zip(np.linspace(0, 1, steps).tolist(), map(show, written), strict=True))


def path(start: np.ndarray, end: np.ndarray, steps: int, *, spherical: bool) -> np.ndarray:
    """Vectors at equal distances from `start` to `end`, both included, (steps, Z).

    Args:
      start, end: (Z,).
      steps: how many.
      spherical: at equal angles, as the prior's mass lies in a shell (White 2016, arXiv:1609.04468, section 2.1):
        (sin((1-t) w) start + sin(t w) end) / sin w, w being the angle between; a line where both lie on one.
    """
    t = np.linspace(0, 1, steps)[:, None]
    line = (1 - t) * start + t * end
    norms = np.linalg.norm(start) * np.linalg.norm(end)
    if not spherical or norms == 0:
        return line
    angle = np.arccos(np.clip(start @ end / norms, -1, 1))
    if np.sin(angle) < PARALLEL:
        return line
    arc: np.ndarray = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    return arc


def _numbers(ids: np.ndarray) -> str:
    return " ".join(str(i) for i in ids)
