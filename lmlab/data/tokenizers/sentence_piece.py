"""SentencePiece, trained and run by its own library."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from lmlab.data.tokenizers.hf import role_of
from lmlab.data.tokenizers.hugging_face import by_word, check_roles, token_of
from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import ConfigError, DataError
from lmlab.ranges import Count, Fraction
from lmlab.registry import tokenizers

_SPACE = "▁"
_THREADS = -1  # as many as there are cores


@functools.cache
def library() -> Any:
    """The package `sentencepiece`; ConfigError where it is not installed."""
    try:
        return importlib.import_module("sentencepiece")
    except ModuleNotFoundError as error:
        if error.name != "sentencepiece":
            raise
        raise ConfigError(
            "the tokenizer 'sentencepiece' needs sentencepiece: pip install 'lmlab[sentencepiece]'"
        ) from None


@tokenizers.register("sentencepiece")
@dataclass(frozen=True)
class SentencePiece:
    """SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226), from a .model file or trained; lossy.

    Text is normalised, runs of white space become one space, and a space is put before the first word. Special
    symbols in a text are not parsed. The same texts give the same model. Needs `pip install 'lmlab[sentencepiece]'`.
    A run keeps the whole model. Ids when trained: 0 is `<unk>`, 1 ends documents, then the specials, 256 bytes
    (with `byte_fallback`), and the pieces.

    Bytes: those of the pieces, which are those of the normalised text with the space put before it.

    Args:
      model: a .model file, which is then used as it is; None: train one.
      size: number of ids at most, V, all others included.
      algorithm: a `unigram` language model, or byte-pair encoding, `bpe`.
      normalisation: SentencePiece's own NFKC (`nmt_nfkc`), `nfkc`, either with case folding (`_cf`), or `identity`.
      coverage: share of the text's characters that get a piece of their own.
      byte_fallback: write other characters as bytes; without, they are unknown.
      specials: roles of further ids that stand for no text, such as `mask`, when trained.
    """

    lossy: ClassVar[bool] = True
    TINY: ClassVar[str] = "sentencepiece.size = 331"
    _proto: ClassVar[bytes | None] = None  # an instance that is fitted has its own

    model: str | None = None
    size: Count = 8000
    algorithm: Literal["unigram", "bpe"] = "unigram"
    normalisation: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = "nmt_nfkc"
    coverage: Fraction = 0.9995
    byte_fallback: bool = True
    specials: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        return int(self._run.get_piece_size())

    @property
    def end_of_text(self) -> int:
        """The id after every document."""
        return self.special_ids["end_of_text"]

    @property
    def unknown(self) -> int:
        """The id of what has no piece."""
        return int(self._run.unk_id())

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Ids that stand for no text, by role."""
        run = self._run
        found = {"unknown": self.unknown}
        for i in range(self.vocab_size):
            if run.is_control(i):
                found.setdefault("end_of_text" if i == run.eos_id() else role_of(run.id_to_piece(i)), i)
        if "end_of_text" not in found:
            raise ConfigError(f"{self.model}: this model has no end of sentence, which is to end documents.")
        return found

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the model of the file, or with one made from `texts`.

        Raises:
          ConfigError: the library is not installed, or the specials are not distinct.
          DataError: the file cannot be read, or the library can make no model of these texts.
        """
        if self.model is None:
            return self._with(self._trained(texts))
        try:
            content = Path(self.model).read_bytes()
        except OSError as error:
            raise DataError(f"{self.model} cannot be read: {error.strerror}.") from None
        return self._with(content)

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, made on all cores."""
        try:
            return list(self._run.encode(list(texts), return_type="numpy", num_threads=_THREADS))
        except (TypeError, RuntimeError):  # the library's answers to half of a surrogate pair
            for text in texts:
                utf8(text)
            raise

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word of `" ".join(words)`: those whose last character is in it; at least one."""
        text = " ".join(words)
        found = by_word(words, self.encode(text), self.offsets(text))
        return [ids if len(ids) else np.array([self.unknown], np.int32) for ids in found]

    def offsets(self, text: str) -> np.ndarray:
        """Range of characters of `text` behind each id, (n, 2) int32; of a character's bytes, the last has it."""
        utf8(text)
        found = self._run.encode(text, return_type="offset_mapping")["offsets"]
        return np.array(found, np.int32).reshape(-1, 2)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids` without special ids; bytes that are not UTF-8 come out as U+FFFD."""
        pieces = self._pieces
        return b"".join([pieces[int(i)] for i in ids]).decode(errors="replace").removeprefix(" ")

    def token_bytes(self) -> list[bytes]:
        """The bytes of each piece, with the space before a word; none for special ids."""
        return list(self._pieces)

    def to_json(self) -> dict[str, Any]:
        """The whole model, in base 64."""
        proto = self._fitted()
        return {"sha256": hashlib.sha256(proto).hexdigest(), "model": base64.b64encode(proto).decode()}

    def from_json(self, saved: Mapping[str, Any]) -> Self:
        """The tokenizer that was saved."""
        return self._with(base64.b64decode(saved["model"]))

    def export(self) -> bytes:
        """A .model file, which `model` and other programs read."""
        return self._fitted()

    def _trained(self, texts: Iterable[str]) -> bytes:
        check_roles("sentencepiece", ("end_of_text", "unknown", *self.specials))
        written = io.BytesIO()
        try:
            library().SentencePieceTrainer.train(
                sentence_iterator=_lines(texts), model_writer=written, vocab_size=self.size, hard_vocab_limit=False,
                model_type=self.algorithm, normalization_rule_name=self.normalisation, byte_fallback=self.byte_fallback,
                character_coverage=self.coverage, unk_id=0, eos_id=1, bos_id=-1, pad_id=-1, num_threads=1,
                control_symbols=[token_of(role) for role in self.specials], max_sentence_length=1 << 30, minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            raise DataError(
                f"the tokenizer 'sentencepiece' made no model of the training texts: {error}. "
                "Give it more text, or lower sentencepiece.size."
            ) from None
        return written.getvalue()

    def _with(self, proto: bytes) -> Self:
        fitted = dataclasses.replace(self)
        fitted.__dict__["_proto"] = proto
        return fitted

    def _fitted(self) -> bytes:
        if self._proto is None:
            raise DataError("the tokenizer 'sentencepiece' has no model yet: fit it on texts, or load a saved one.")
        return self._proto

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    @functools.cached_property
    def _run(self) -> Any:
        proto = self._fitted()
        try:
            return library().SentencePieceProcessor(model_proto=proto)
        except RuntimeError as error:
            raise DataError(f"{self.model or 'the saved model'} is no SentencePiece model: {error}") from None

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        return [self._piece(i) for i in range(self.vocab_size)]

    def _piece(self, i: int) -> bytes:
        run = self._run
        if run.is_control(i) or run.is_unknown(i):
            return b""
        piece = run.id_to_piece(i)
        return bytes([int(piece[3:5], 16)]) if run.is_byte(i) else piece.replace(_SPACE, " ").encode()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts: SentencePiece's sentences."""
    for text in texts:
        utf8(text)
        yield from filter(None, text.split("\n"))
