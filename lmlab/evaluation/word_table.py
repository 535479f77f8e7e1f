"""What the vectors of a run's token ids are near to."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmlab.errors import ConfigError, DataError
from lmlab.generation.saved import SavedRun
from lmlab.registry import near_names

if TYPE_CHECKING:
    from jaxtyping import Float

    from lmlab.contracts import Tokenizer

WORDS_TABLE = "embedding/embedding"
"""Where a model keeps the vectors of the ids that it reads, if it has several tables."""


class WordTable:
    """Vectors of words by their names, compared by the cosine of their angle.

    Args:
      vectors: of every id, (V, D).
      tokenizer: says which ids a word has, and what they stand for; None where words are numbers, the ids themselves.
      special: ids that stand for no text, which are nobody's neighbours.
    """

    def __init__(
        self, vectors: Float[np.ndarray, "V D"], tokenizer: Tokenizer | None = None, special: Collection[int] = ()
    ) -> None:
        self._raw, self._tokenizer, self._special = np.asarray(vectors, np.float32), tokenizer, list(special)
        self._unit = unit(self._raw)
        self._unknown = getattr(tokenizer, "unknown", None)
        self.names = list(map(str, range(len(vectors)))) if tokenizer is None else names_of(tokenizer)

    def ids(self, word: str) -> list[int]:
        """The ids of a word, as it stands in the middle of a text.

        Raises:
          DataError: it is not in the vocabulary; the message names words like it that are.
        """
        if self._tokenizer is None:
            ids = [int(word)] if word.isdecimal() else [-1]
            if not 0 <= ids[0] < len(self.names):
                raise DataError(f"'{word}': this run's words are ids, the numbers from 0 to {len(self.names) - 1}.")
            return ids
        if not word.strip():
            raise DataError("an empty word has no vector.")
        ids = self._tokenizer.encode_words([word, word])[1].tolist()
        if self._unknown is not None and self._unknown in ids:
            raise DataError(f"'{word}' is not in the vocabulary of the run.{near_names(word, self.names)}")
        return ids

    def vector(self, word: str) -> Float[np.ndarray, " D"]:
        """A word's vector, of length 1; of a word of several ids, their mean's."""
        return unit(self._raw[self.ids(word)].mean(0))

    def nearest(
        self, vector: Float[np.ndarray, " D"], count: int, without: Iterable[str] = ()
    ) -> list[tuple[str, float]]:
        """The names of the ids of greatest cosine with a vector, and these cosines, the greatest first.

        Args:
          vector: of any length.
          count: how many.
          without: words that are left out, where they have one id.
        """
        cosines = self._unit @ unit(vector)
        given = [ids[0] for word in without if len(ids := self.ids(word)) == 1]
        cosines[[*self._special, *given]] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(self.names[i], float(cosines[i])) for i in order if np.isfinite(cosines[i])]


def names_of(tokenizer: Tokenizer) -> list[str]:
    """What ids stand for: a word where all of them are words, else a quoted piece of text; `<role>` for special ids."""
    roles = {i: f"<{role}>" for role, i in tokenizer.special_ids.items()}
    pieces = [piece.decode("utf-8", "replace") for piece in tokenizer.token_bytes()]
    whole = all(piece.startswith(" ") or piece == "\n" for i, piece in enumerate(pieces) if i not in roles)
    return [roles.get(i) or (piece[1:] if whole and piece != "\n" else repr(piece)) for i, piece in enumerate(pieces)]


def unit(vectors: Float[np.ndarray, "*N D"]) -> Float[np.ndarray, "*N D"]:
    """Vectors made to length 1; zeros stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def open_table(folder: str, step: int | None = None, table: str | None = None) -> WordTable:
    """The vectors of a run's ids, averaged where the run keeps an average.

    Args:
      folder: the run folder.
      step: the checkpoint of this step; None: the newest.
      table: the path of the parameter; None: of the ids that the model reads.

    Raises:
      ConfigError: the model has no such table.
    """
    saved = SavedRun(folder)
    program = saved.program
    path = table_of(program.model, program.data.vocab, program.experiment.model.name, table)
    return WordTable(np.asarray(saved.params(step)[path]), program.tokenizer, program.data.special_ids.values())


def table_of(model: Any, vocab: int, name: str, wanted: str | None = None) -> str:
    """The path of a model's table with a vector for each id.

    Args:
      model: a ModelDef.
      vocab: V.
      name: the model's, for the message.
      wanted: one of several; None: the one that is called `embedding`, else the first.

    Raises:
      ConfigError: there is none, or not this one.
    """
    shapes: Mapping[str, Any] = model.shapes
    tables = [
        path
        for path, role in model.roles.items()
        if role == "embedding"
        and shapes[path].ndim == 2
        and shapes[path].shape[0] == vocab
        and shapes[path].dtype.kind == "f"
    ]
    if not tables:
        raise ConfigError(f"the model '{name}' has no vector for each token id: there are no neighbours in it.")
    if wanted is not None and wanted not in tables:
        raise ConfigError(
            f"--table {wanted}: the model '{name}' has no such table of vectors.{near_names(wanted, tables)}\n"
            f"  its tables: {', '.join(tables)}"
        )
    return wanted or (WORDS_TABLE if WORDS_TABLE in tables else tables[0])


def note_pieces(table: WordTable, words: Sequence[str]) -> None:
    """Says on standard error which words have several ids, whose mean stands for them."""
    for word in words:
        if len(ids := table.ids(word)) > 1:
            pieces = " ".join(table.names[i] for i in ids)
            print(f"'{word}' has {len(ids)} ids ({pieces}): the mean of their vectors is taken.", file=sys.stderr)
