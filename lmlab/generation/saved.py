"""A run as those use it who only read or write text with it: on one device, with its averaged parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from jax import Array

from lmlab.data.features.pairs import target_start
from lmlab.errors import ConfigError, DataError
from lmlab.generation.writing import local, positions
from lmlab.parallel.mesh import Mesh
from lmlab.training.program import Program
from lmlab.training.run import Run
from lmlab.training.state import averaged_params


class SavedRun:
    """A run's program on one device, whatever it was trained on.

    Args:
      folder: the run folder.

    Attributes:
      program: made as the run's was; nothing is loaded yet.
    """

    def __init__(self, folder: str) -> None:
        found = Run(folder)
        self._folder = folder
        self.program = Program(found.resolved, saved_tokenizer=found.files.saved_tokenizer(), partitioner=Mesh(data=1))

    def params(self, step: int | None = None) -> Mapping[str, Array]:
        """The parameters of a checkpoint, path -> array, averaged where the run keeps an average.

        Args:
          step: of the checkpoint; None: the newest.
        """
        state, _ = Run(self._folder, self.program).restore(step)
        return local(averaged_params(self.program.partitioner.export(state)))


def ids_of_text(program: Program, text: str, *, before: bool = False, behind: bool = False) -> np.ndarray:
    """The ids of a text, (T,) int32, in which `<mask>` and the like are the special ids of these roles.

    Of a run whose data are ids without a tokenizer, a text is numbers with spaces between them.

    Args:
      program: of the run.
      text: to be read.
      before, behind: an end of text stands there, as the features of pairs have it around targets and sources.

    Raises:
      ConfigError: the text is longer than the model can read.
      DataError: there is no token in the text, or it is no row of ids.
    """
    special, tokenizer = program.data.special_ids, program.tokenizer
    if tokenizer is None:
        ids = np.array([_number(program, word, text) for word in text.split()], np.int32)
    else:
        roles = {f"<{role}>": i for role, i in special.items()}
        parts = re.split(f"({'|'.join(map(re.escape, roles))})", text) if roles else [text]
        found = [[roles[part]] if part in roles else tokenizer.encode(part) for part in parts if part]
        ids = np.concatenate([np.zeros(0, np.int32), *found])
    if not len(ids):
        raise DataError(f"there is no token in {text!r}.")
    start, end = ([0], [0]) if tokenizer is None else ([target_start(tokenizer)], [tokenizer.end_of_text])
    ids = np.concatenate([start * before, ids, end * behind]).astype(np.int32)
    limit = positions(program.model)
    if limit is not None and len(ids) > limit:
        raise ConfigError(f"the text has {len(ids)} tokens, and the model positions for {limit}. Give a shorter one.")
    return ids


def _number(program: Program, word: str, text: str) -> int:
    special, vocab = program.data.special_ids, program.data.vocab
    if word[:1] == "<" and word[1:-1] in special and word[-1] == ">":
        return special[word[1:-1]]
    if not word.isdecimal() or int(word) >= vocab:
        raise DataError(
            f"{text!r}: this run's data are ids without a tokenizer, so that a text is numbers from 0 to {vocab - 1} "
            "with spaces between them."
        )
    return int(word)
