"""Words between white space, as the papers of the n-gram and early neural models count them. No library, no loop."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from lmlab.data.tokenizers.hugging_face import check_roles
from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import ConfigError, DataError
from lmlab.ranges import Count
from lmlab.registry import tokenizers

UNKNOWN = b"<unk>"
_BREAK = b"\xff"  # stands for a line break among words: no UTF-8 text holds it
_SPACES = np.array([ord(c) for c in " \t\n\r\v\f"], np.uint32)


@tokenizers.register("words")
@dataclass(frozen=True)
class Words:
    """The words of the training texts, by falling frequency; rarer ones become one id, `<unk>`. Lossy.

    A word is a maximal run of characters other than space, tab, newline, carriage return, vertical tab and form feed:
    what `ppl/word` counts. Bengio et al. (2003, section 4) merge words that occur 3 times or less
    (`min_count = 4`); Mikolov et al. (2010) count an end of sentence `<eos>` for every line
    (`end_of_sentence = True`). Where a text holds the word `<unk>`, as Mikolov's cut of the Penn Treebank does, that
    is the unknown id. Ids: 0 ends documents, 1 is `<unk>`, then the specials, the line break, and the words; words of
    one frequency in the order of their bytes. Fitted on "the cat saw the dog":
      "the  bird saw" → [2, 1, 5]             # the=2, cat=3, dog=4, saw=5

    White space is not kept: `decode` puts one space between words. Bytes: a word stands for itself with the space
    before it, a line break for itself, and an unknown word for none.

    Args:
      min_count: words seen less often become `<unk>`, which is thereby trained.
      size: number of ids at most, V, all others included; None is as many as there are.
      end_of_sentence: make an id of every line break.
      lower_case: lower-case the text first.
      specials: roles of further ids that stand for no text, such as `mask`, from id 2 on.
    """

    lossy: ClassVar[bool] = True
    end_of_text: ClassVar[int] = 0
    unknown: ClassVar[int] = 1
    _ids: ClassVar[dict[bytes, int] | None] = None  # an instance that is fitted has its own

    min_count: Count = 1
    size: Count | None = None
    end_of_sentence: bool = False
    lower_case: bool = False
    specials: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        return self._first + len(self._fitted()) - len(self._fixed())

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids that stand for no text, by role."""
        return {"end_of_text": 0, "unknown": 1} | {role: 2 + i for i, role in enumerate(self.specials)}

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the words of `texts`.

        Raises:
          ConfigError: `size` leaves no room for a word, or the specials are not distinct.
          DataError: there is no word often enough.
        """
        check_roles("words", ("end_of_text", "unknown", *self.specials))
        room = None if self.size is None else self.size - self._first
        if room is not None and room < 1:
            raise ConfigError(f"words.size = {self.size}: {self._first} ids are taken, and there is no room for words.")
        counts: collections.Counter[bytes] = collections.Counter()
        for text in texts:
            counts.update(self._split(text))
        for taken in self._fixed():
            counts.pop(taken, None)
        kept = sorted((-count, word) for word, count in counts.items() if count >= self.min_count)
        if not kept:
            raise DataError(
                f"the tokenizer 'words' found no word that occurs {self.min_count} times in the training texts. "
                "Give it more text, or lower words.min_count."
            )
        return self._with([word for _, word in kept[:room]])

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32; words that are not in the vocabulary become `<unk>`."""
        words = self._split(text)
        found = map(self._fitted().get, words, itertools.repeat(self.unknown))
        return np.fromiter(found, np.int32, count=len(words))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """One id or more for each word; more where there is white space in it."""
        found = [self.encode(word) for word in words]
        return [ids if len(ids) else np.array([self.unknown], np.int32) for ids in found]

    def offsets(self, text: str) -> np.ndarray:
        """Where each word, or line break, stands, (n, 2) int32."""
        points = np.frombuffer(f" {text} ".encode("utf-32-le"), np.uint32)
        change = np.diff(np.isin(points, _SPACES).astype(np.int8))
        found = np.stack([np.flatnonzero(change == -1), np.flatnonzero(change == 1)], axis=1)
        if self.end_of_sentence:
            breaks = np.flatnonzero(points == ord("\n")) - 1
            found = np.concatenate([found, np.stack([breaks, breaks + 1], axis=1)])
            found = found[np.argsort(found[:, 0])]
        return found.astype(np.int32)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Words with single spaces between, without special ids but `<unk>`."""
        pieces = self.token_bytes()
        pieces[self.unknown] = b" " + UNKNOWN
        text = b"".join([pieces[i] for i in np.asarray(ids, np.int64).tolist()])
        return text.replace(b"\n ", b"\n").removeprefix(b" ").decode()

    def token_bytes(self) -> list[bytes]:
        """Each word with the space before it, `\\n` for a line break; none for special ids."""
        pieces = [b""] * self.vocab_size
        for word, i in self._fitted().items():
            pieces[i] = b" " + word
        return [b"\n" if i == self._fixed().get(_BREAK) else b"" if i == 1 else p for i, p in enumerate(pieces)]

    def to_json(self) -> dict[str, Any]:
        """The words in the order of their ids."""
        words = [word.decode() for word in list(self._fitted())[len(self._fixed()) :]]
        return {
            "min_count": self.min_count, "size": self.size, "end_of_sentence": self.end_of_sentence,
            "lower_case": self.lower_case, "specials": list(self.specials), "words": words,
        }  # fmt: skip

    def from_json(self, saved: Mapping[str, Any]) -> Self:
        """The tokenizer that was saved."""
        settings = {name: value for name, value in saved.items() if name not in ("words", "specials")}
        plain = type(self)(**settings, specials=tuple(saved["specials"]))
        return plain._with([word.encode() for word in saved["words"]])

    @property
    def _first(self) -> int:
        """The id of the most frequent word."""
        return 2 + len(self.specials) + self.end_of_sentence

    def _fixed(self) -> dict[bytes, int]:
        """What text may hold beside words."""
        return {UNKNOWN: 1} | ({_BREAK: self._first - 1} if self.end_of_sentence else {})

    def _with(self, words: list[bytes]) -> Self:
        fitted = type(self)(self.min_count, self.size, self.end_of_sentence, self.lower_case, self.specials)
        ids = dict(zip(words, range(self._first, self._first + len(words)), strict=True))
        fitted.__dict__["_ids"] = self._fixed() | ids
        return fitted

    def _split(self, text: str) -> list[bytes]:
        data = utf8(text.lower() if self.lower_case else text)
        if self.end_of_sentence:
            data = data.replace(b"\n", b" " + _BREAK + b" ")
        return data.split()  # of bytes: at the six characters of the docstring, not at all of Unicode's spaces

    def _fitted(self) -> dict[bytes, int]:
        if self._ids is None:
            raise DataError("the tokenizer 'words' has no vocabulary yet: fit it on texts, or load a saved one.")
        return self._ids
