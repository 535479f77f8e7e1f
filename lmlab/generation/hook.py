"""The hook `samples`: what the model writes, while it is being trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax

from lmlab.contracts import Ref, Sampler
from lmlab.generation.writing import Author, local
from lmlab.ranges import Count, Natural, Seed
from lmlab.registry import hooks
from lmlab.training.files import replace_text
from lmlab.training.state import averaged_params

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.training.run import Run
    from lmlab.training.state import State


@hooks.register("samples")
@dataclass(frozen=True)
class Samples:
    """Writes continuations of prompts to `samples/<step>.txt` in the run folder, and shows the last ones at the end.

    Args:
      every: steps between samples (0: only at the end).
      prompts: what is continued; "" is the beginning of a document. Without a tokenizer, ids as numbers.
      count: continuations of each prompt.
      length: the most tokens to add.
      seed: of the random numbers: the same at every step, so that samples can be compared.
      sampler: how tokens are chosen.
    """

    TINY: ClassVar[str] = "samples.every = 2\nsamples.length = 5"

    every: Natural = 0
    prompts: tuple[str, ...] = ("",)
    count: Count = 1
    length: Count = 256
    seed: Seed = 0
    sampler: Sampler = Ref("sample")  # type: ignore[assignment]

    def bind(self, run: Run) -> Callable[[int, State, bool], None]:
        """Prepares for a run.

        Raises:
          ConfigError: the model cannot generate.
        """
        author = Author(run.program, self.sampler)

        def hook(step: int, state: State, last: bool) -> None:
            if last or (self.every and step % self.every == 0):
                text = self._text(author, local(averaged_params(run.program.partitioner.export(state))))
                if jax.process_index() == 0:
                    replace_text(run.files.samples / f"{step}.txt", text)
                    if last:
                        print(text, flush=True)

        return hook

    def _text(self, author: Author, params: Mapping[str, Array]) -> str:
        prompts = [prompt for prompt in self.prompts for _ in range(self.count)]
        written = author.write(params, prompts, length=self.length, seed=self.seed)
        return sheet(prompts, written, self.count, author.between)


def sheet(prompts: Sequence[str], written: Sequence[str], count: int, between: str = "") -> str:
    """Prompts with their continuations (`between` both), each below a line that says which it is."""
    parts = []
    for row, (prompt, text) in enumerate(zip(prompts, written, strict=True)):
        of = f" of {prompt!r}" if prompt else ""
        parts.append(f"--- sample {row % count + 1}{of} ---\n{prompt}{between}{text}\n")
    return "".join(parts)
