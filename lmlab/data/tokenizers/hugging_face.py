"""What the tokenizers have in common that Hugging Face's library `tokenizers` trains and runs, on all cores.

A special id is never made from text: `[MASK]` in a document is those six characters. Neither the library nor numpy is
imported before it is needed: `lmlab data list` asks this module's tokenizers where their vocabularies come from.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from lmlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

LONG = 1 << 15
"""Characters from which on a text is handed over in parts, so that one long document keeps all cores busy."""

_SAFE_CUT = re.compile("(?<=[A-Za-z0-9.,;]) (?=[A-Za-z0-9])")
_BATCH = 256  # texts handed to a trainer at a time
_FORK = {"TOKENIZERS_PARALLELISM": "false"}  # of the library's threads, none is there in a forked process


@functools.cache
def library() -> Any:
    """The package `tokenizers`; forked children use it without threads, and without a warning about that.

    Raises:
      ConfigError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # where it is unset, the library warns of every fork
    os.register_at_fork(after_in_child=lambda: os.environ.update(_FORK))
    try:
        return importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        raise ConfigError("this tokenizer needs the package 'tokenizers': pip install tokenizers") from None


def token_of(role: str) -> str:
    """How a special id is written in a tokenizer.json: `<|mask|>`, and as GPT-2 has it, `<|endoftext|>`."""
    return "<|endoftext|>" if role == "end_of_text" else f"<|{role}|>"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of the library with its special ids; pickled as what a file would hold.

    Args:
      rust: the library's tokenizer.
      special_ids: ids that stand for no text, by role.
      facts: what else is saved, such as a file's checksum.
    """

    rust: Any
    special_ids: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rust.no_truncation()
        self.rust.no_padding()
        self.rust.encode_special_tokens = True  # in text they are text

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary.read, (self.rust.to_str(), dict(self.special_ids), dict(self.facts))

    @classmethod
    def read(cls, text: str, special_ids: Mapping[str, int], facts: Mapping[str, Any]) -> Vocabulary:
        """The tokenizer of a tokenizer.json; DataError where the library cannot read it."""
        try:
            rust = library().Tokenizer.from_str(text)
        except Exception as error:  # the library knows no other type
            raise DataError(f"this is no tokenizer.json that the library reads: {error}") from None
        return cls(rust, special_ids, facts)

    @functools.cached_property
    def pieces(self) -> list[str]:
        """What the vocabulary calls each id; "" for ids that it leaves out."""
        ids = self.rust.get_vocab(with_added_tokens=True)
        pieces = [""] * (max(ids.values(), default=-1) + 1)
        for piece, i in ids.items():
            pieces[i] = piece
        return pieces


class HuggingFace(ABC):
    """A tokenizer of the library behind lmlab's contract; what it is configured by, and trained as, is its subclass's.

    A subclass is a frozen dataclass with `name`, with `_trained` or `fit`, and with `piece_bytes`.
    """

    name: ClassVar[str]
    lossy: ClassVar[bool] = True
    cut_at_spaces: ClassVar[bool] = True
    """Whether the ids of a text are those of its parts, cut before spaces between letters."""
    _vocabulary: ClassVar[Vocabulary | None] = None  # an instance that is fitted has its own

    @property
    def vocabulary(self) -> Vocabulary:
        """The fitted vocabulary; DataError where there is none yet."""
        if self._vocabulary is None:
            raise DataError(f"the tokenizer '{self.name}' has no vocabulary yet: fit it on texts, or load a saved one.")
        return self._vocabulary

    def fitted(self, vocabulary: Vocabulary) -> Self:
        """This tokenizer with a vocabulary."""
        found = dataclasses.replace(cast(Any, self))
        found.__dict__["_vocabulary"] = vocabulary
        return cast(Self, found)

    @property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        return len(self.vocabulary.pieces)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids that stand for no text, by role."""
        return dict(self.vocabulary.special_ids)

    @property
    def end_of_text(self) -> int:
        """The id after every document."""
        return self.vocabulary.special_ids["end_of_text"]

    @property
    def unknown(self) -> int:
        """The id of what is not known; AttributeError, so that `hasattr` is False, where everything is."""
        if self._vocabulary is None or "unknown" not in self._vocabulary.special_ids:
            raise AttributeError(f"the tokenizer '{self.name}' has no id for the unknown")
        return self._vocabulary.special_ids["unknown"]

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, made on all cores; long texts in parts."""
        parts = [list(self._parts(text)) for text in texts]
        found = iter(self._encodings([part for several in parts for part in several]))
        joined = [[_array(next(found).ids) for _ in several] for several in parts]
        return [several[0] if len(several) == 1 else _concatenated(several) for several in joined]

    def encode_marked(self, text: str, framed: bool = False) -> np.ndarray:
        """Ids of a text whose special tokens are written out and meant, 1-d int32: what a chat template has made.

        Args:
          text: with special tokens.
          framed: also put around it what the tokenizer.json says: before a text of Llama's, the beginning of text.
        """
        return _array(self._marked.encode(text, add_special_tokens=framed).ids)

    def marked_places(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of `encode_marked`, and the range of characters [start, stop) behind each, (n, 2) int32."""
        found = self._marked.encode(text, add_special_tokens=False)
        return _array(found.ids), _array(found.offsets).reshape(-1, 2)

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word of `" ".join(words)`: those whose last character is in it; at least one."""
        text = " ".join(words)
        found = by_word(words, self.encode(text), self.offsets(text))
        return [ids if len(ids) else self._alone(word) for word, ids in zip(words, found, strict=True)]

    def offsets(self, text: str) -> np.ndarray:
        """Range of characters [start, stop) of `text` behind each id, (n, 2) int32."""
        parts, start, found = list(self._parts(text)), 0, []
        for part, encoding in zip(parts, self._encodings(parts, offsets=True), strict=True):
            found.append(_array(encoding.offsets).reshape(-1, 2) + _array(start))
            start += len(part)
        return _concatenated(found)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids` without special ids; bytes that are not UTF-8 come out as U+FFFD."""
        pieces = self._token_bytes
        return b"".join([pieces[i] for i in _array(ids).tolist()]).decode(errors="replace")

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for; none for special ids."""
        return list(self._token_bytes)

    @abstractmethod
    def piece_bytes(self, piece: str) -> bytes:
        """The bytes behind a piece of the vocabulary."""

    def to_json(self) -> dict[str, Any]:
        """The whole tokenizer.json, and the special ids."""
        vocabulary = self.vocabulary
        whole = json.loads(vocabulary.rust.to_str())
        return {"special_ids": self.special_ids, **vocabulary.facts, "tokenizer": whole}

    def from_json(self, saved: Mapping[str, Any]) -> Self:
        """The tokenizer that was saved."""
        facts = {name: value for name, value in saved.items() if name not in ("special_ids", "tokenizer")}
        return self.fitted(Vocabulary.read(json.dumps(saved["tokenizer"]), saved["special_ids"], facts))

    def export(self) -> bytes:
        """A tokenizer.json, which the tokenizer `hf` and other programs read."""
        return f"{self.vocabulary.rust.to_str(pretty=True)}\n".encode()

    def train(self, rust: Any, trainer: Any, texts: Iterable[str]) -> Any:
        """`rust`, after `trainer` has made its vocabulary from `texts`; DataError where these are empty."""
        parts = (part for text in texts if text for part in self._parts(text))
        first = next(parts, None)
        if first is None:
            raise DataError(f"the tokenizer '{self.name}' found no text to be fitted on.")
        try:
            rust.train_from_iterator(_batches(itertools.chain([first], parts)), trainer)
        except UnicodeEncodeError as error:
            refuse_surrogates([str(error.object)])
            raise
        return rust

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        special = {self.vocabulary.pieces[i] for i in self.vocabulary.special_ids.values()}
        return [b"" if piece in special else self.piece_bytes(piece) for piece in self.vocabulary.pieces]

    @functools.cached_property
    def _marked(self) -> Any:
        return library().Tokenizer.from_str(self.vocabulary.rust.to_str())  # which parses special tokens

    def _encodings(self, texts: list[str], offsets: bool = False) -> list[Any]:
        rust = self.vocabulary.rust
        run = rust.encode_batch if offsets else rust.encode_batch_fast
        try:
            return list(run(texts, add_special_tokens=False))
        except TypeError:  # the library's answer to half of a surrogate pair
            refuse_surrogates(texts)
            raise

    def _parts(self, text: str) -> Iterator[str]:
        start = 0
        if self.cut_at_spaces:
            while start + LONG < len(text) and (cut := _SAFE_CUT.search(text, start + LONG)):
                yield text[start : cut.start()]
                start = cut.start()
        yield text[start:] if start else text

    def _alone(self, word: str) -> np.ndarray:
        """Ids of a word that has none of its own in its text."""
        found = self.encode(word)
        if len(found):
            return found
        if "unknown" not in self.vocabulary.special_ids:
            raise DataError(f"the tokenizer '{self.name}' makes no id of the word {word!r}.")
        return _array([self.vocabulary.special_ids["unknown"]])


def with_specials(rust: Any, roles: Sequence[str], facts: Mapping[str, Any] | None = None) -> Vocabulary:
    """A vocabulary with the ids of `roles` behind all others."""
    token = library().AddedToken
    first = len(Vocabulary(rust, {}).pieces)
    for role in roles:
        rust.add_special_tokens([token(token_of(role), special=True, normalized=False)])
    return Vocabulary(rust, {role: first + i for i, role in enumerate(roles)}, facts or {})


def check_roles(name: str, roles: Sequence[str]) -> None:
    """ConfigError where a role is there twice, or is no name."""
    for i, role in enumerate(roles):
        if role in roles[:i]:
            raise ConfigError(f"{name}.specials: '{role}' is there twice.")
        if not role.isidentifier():
            raise ConfigError(f"{name}.specials: {role!r} is no role. Roles are names such as 'mask'.")


def by_word(words: Sequence[str], ids: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """The ids of a text, divided by the word (between single spaces) that the last character behind an id is in.

    Example: "ab c", ids [5, 6, 7] of "a", "b" and " c" → [5, 6], [7].
    """
    import numpy as np

    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    word = np.searchsorted(ends, np.maximum(offsets[:, 1] - 1, offsets[:, 0]), side="right")
    return np.split(ids, np.searchsorted(word, np.arange(1, len(words)))) if len(words) else []


def _array(numbers: Any) -> np.ndarray:
    import numpy as np

    return np.asarray(numbers, np.int32)


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.concatenate(arrays)


def refuse_surrogates(texts: Iterable[str]) -> None:
    """DataError where a text holds half of a surrogate pair."""
    from lmlab.data.tokenizers.plain import utf8

    for text in texts:
        utf8(text)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups of texts: a call into the library for each one would take longer than its counting."""
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == _BATCH:
            yield group
            group = []
    yield group
