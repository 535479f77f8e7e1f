"""Tokenizers that need no library: UTF-8 bytes, and the characters of a training text. No Python loop per character."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmlab.errors import DataError
from lmlab.registry import tokenizers


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of `text`; DataError where it holds half of a surrogate pair, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start} is the lone surrogate U+{ord(text[error.start]):04X}, which no UTF-8 text holds. "
            "Remove or replace it."
        ) from None


@tokenizers.register("bytes")
@dataclass(frozen=True)
class Bytes:
    """The UTF-8 bytes of a text: 256 ids, nothing to fit, nothing unknown.

    Example: "aé" → [97, 195, 169].

    Args:
      end_of_text: the id after every document. 0 takes the byte that no text needs, so that the vocabulary
        stays 256; a text that does hold it is refused. 256 is an id of its own, and every text is covered.
      specials: roles of further ids that stand for no text, such as `mask`, behind all others.
    """

    end_of_text: Literal[0, 256] = 0
    specials: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """256, one more where `end_of_text` is an id of its own, and the specials."""
        return self._plain + len(self.specials)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids that stand for no text, by role."""
        return {"end_of_text": self.end_of_text} | {role: self._plain + i for i, role in enumerate(self.specials)}

    @property
    def _plain(self) -> int:
        return 256 if self.end_of_text == 0 else 257

    def fit(self, texts: Iterable[str]) -> Bytes:
        """Itself: there is nothing to learn."""
        return self

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32; DataError for a text that holds the byte used as `end_of_text`."""
        data = utf8(text)
        if self.end_of_text == 0 and (place := data.find(0)) >= 0:
            raise DataError(
                f"byte {place} is NUL, which the tokenizer 'bytes' puts after documents. "
                "Set bytes.end_of_text = 256 to give that its own id, or remove the NUL."
            )
        return np.frombuffer(data, np.uint8).astype(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word; the space before a word is its first byte."""
        return [self.encode(f" {word}" if i else word) for i, word in enumerate(words)]

    def offsets(self, text: str) -> np.ndarray:
        """The character that each byte belongs to, as a range, (n, 2) int32."""
        lengths = np.array([len(character.encode()) for character in text], np.int64)
        place = np.repeat(np.arange(len(text), dtype=np.int32), lengths)
        return np.stack([place, place + 1], axis=1)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids` without special ids; bytes that are not UTF-8 come out as U+FFFD."""
        kept = np.asarray(ids, np.int64)
        kept = kept[(kept != self.end_of_text) & (kept < 256)]
        return kept.astype(np.uint8).tobytes().decode(errors="replace")

    def token_bytes(self) -> list[bytes]:
        """One byte for every id; none for special ids."""
        special = set(self.special_ids.values())
        return [b"" if i in special else bytes([i]) for i in range(self.vocab_size)]

    def to_json(self) -> dict[str, Any]:
        """There is no vocabulary: only the special ids."""
        return {"end_of_text": self.end_of_text, "specials": list(self.specials)}

    def from_json(self, saved: Mapping[str, Any]) -> Bytes:
        """The tokenizer that was saved."""
        return Bytes(saved["end_of_text"], tuple(saved.get("specials", ())))


@tokenizers.register("characters")
class Characters:
    """The characters (Unicode code points) of the training texts, in code order; others become one id, `<unk>`.

    Ids: 0 ends documents, 1 is `<unk>`, then the characters. After fitting on "banana":
      "nab!" → [4, 2, 3, 1]                 # a=2, b=3, n=4
      decode → "nab\\ufffd"

    Args:
      min_count: characters seen less often become `<unk>`, which is thereby trained.
      specials: roles of further ids that stand for no text, such as `mask`, from id 2 on.
    """

    end_of_text = 0
    unknown = 1

    def __init__(self, min_count: int = 1, specials: tuple[str, ...] = ()) -> None:
        self.min_count = min_count
        self.specials = tuple(specials)
        self._first = 2 + len(self.specials)
        self._points: np.ndarray | None = None

    @property
    def vocab_size(self) -> int:
        """Number of characters, of the specials, and two."""
        return self._first + len(self._fitted())

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids that stand for no text, by role."""
        return {"end_of_text": 0, "unknown": 1} | {role: 2 + i for i, role in enumerate(self.specials)}

    def fit(self, texts: Iterable[str]) -> Characters:
        """This tokenizer with the characters of `texts`; DataError if there is none often enough."""
        # Texts are joined up to some size: counting is a sort, and many small ones cost more than a few large ones.
        counts: dict[int, int] = {}
        for group in _joined(texts):
            found, times = np.unique(_points(group), return_counts=True)
            for point, count in zip(found.tolist(), times.tolist(), strict=True):
                counts[point] = counts.get(point, 0) + count
        kept = sorted(point for point, count in counts.items() if count >= self.min_count)
        if not kept:
            raise DataError(
                f"the tokenizer 'characters' found no character that occurs {self.min_count} times in the "
                "training texts. Give it more text, or lower characters.min_count."
            )
        return self._with(np.array(kept, np.uint32))

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32; characters that are not in the vocabulary become `<unk>`."""
        known, points = self._fitted(), _points(text)
        place = np.minimum(np.searchsorted(known, points), len(known) - 1)
        return np.where(known[place] == points, place + self._first, self.unknown).astype(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word; the space before a word is its first id."""
        return [self.encode(f" {word}" if i else word) for i, word in enumerate(words)]

    def offsets(self, text: str) -> np.ndarray:
        """One character for each id, as a range, (n, 2) int32."""
        place = np.arange(len(text), dtype=np.int32)
        return np.stack([place, place + 1], axis=1)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids` without special ids; `<unk>` comes out as U+FFFD."""
        kept = np.asarray(ids, np.int64)
        kept = kept[(kept == self.unknown) | (kept >= self._first)]
        points = self._fitted()[np.maximum(kept - self._first, 0)]
        return np.where(kept == self.unknown, 0xFFFD, points).astype("<u4").tobytes().decode("utf-32-le")

    def token_bytes(self) -> list[bytes]:
        """The UTF-8 bytes of every character; none for special ids."""
        return [*[b""] * self._first, *(chr(point).encode() for point in self._fitted().tolist())]

    def to_json(self) -> dict[str, Any]:
        """The characters in the order of their ids."""
        characters = "".join(map(chr, self._fitted().tolist()))
        return {"min_count": self.min_count, "specials": list(self.specials), "characters": characters}

    def from_json(self, saved: Mapping[str, Any]) -> Characters:
        """The tokenizer that was saved."""
        plain = Characters(saved["min_count"], tuple(saved.get("specials", ())))
        return plain._with(_points(saved["characters"]))

    def _with(self, points: np.ndarray) -> Characters:
        fitted = Characters(self.min_count, self.specials)
        fitted._points = points
        return fitted

    def _fitted(self) -> np.ndarray:
        if self._points is None:
            raise DataError("the tokenizer 'characters' has no vocabulary yet: fit it on texts, or load a saved one.")
        return self._points


def _points(text: str) -> np.ndarray:
    utf8(text)  # refuses lone surrogates with a message
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _joined(texts: Iterable[str], size: int = 1 << 20) -> Iterable[str]:
    group: list[str] = []
    total = 0
    for text in texts:
        group.append(text)
        total += len(text)
        if total >= size:
            yield "".join(group)
            group, total = [], 0
    yield "".join(group)
