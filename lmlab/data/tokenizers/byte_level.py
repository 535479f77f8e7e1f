"""Sub-words over UTF-8 bytes: byte-pair encoding and a unigram model, both without loss on any text.

A text is first divided as GPT-2's is (Radford et al. 2019): contractions, runs of letters, of digits, of other
signs, each with the space before it, and runs of white space. No sub-word crosses these edges.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from lmlab.data.tokenizers.hugging_face import HuggingFace, Vocabulary, check_roles, library, with_specials
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Within
from lmlab.registry import tokenizers

Size = Annotated[int, Within(at_least=257)]
"""A number of ids with room for every byte and the end of text."""

_FILLER = 1e-4  # what the library's trainer puts between the scores of bytes that the model does not need


@functools.cache
def letters() -> dict[str, int]:
    """The byte behind each of the 256 characters that byte-level vocabularies are written in (GPT-2's convention).

    Bytes that are visible in Latin-1 stand for themselves; the others, in their order, are the characters from U+0100.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


class ByteLevel(HuggingFace):
    """Pieces of bytes: every text is covered, and its ids' bytes are its UTF-8."""

    lossy: ClassVar[bool] = False

    def piece_bytes(self, piece: str) -> bytes:
        """The bytes that the characters of a piece stand for."""
        return bytes(map(letters().__getitem__, piece))


def as_bytes(rust: Any) -> Any:
    """`rust`, made to divide text as GPT-2 does and to read and write it as bytes."""
    lib = library()
    rust.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = lib.decoders.ByteLevel()
    return rust


@tokenizers.register("bpe")
@dataclass(frozen=True)
class BytePairs(ByteLevel):
    """Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over UTF-8 bytes, as in GPT-2; lossless.

    Fitting starts from the 256 bytes and joins the most frequent pair of neighbours, again and again; encoding does
    the same joins in the same order. The same texts give the same vocabulary, bit by bit. Ids: the bytes, the joins
    in their order, the end of text, the other specials.

    Args:
      size: number of ids at most, V, the specials among them; fewer where the text has no more pairs.
      min_count: pairs seen less often are not joined.
      specials: roles of further ids that stand for no text, such as `mask`, behind the end of text.
    """

    name: ClassVar[str] = "bpe"
    TINY: ClassVar[str] = "bpe.size = 307"

    size: Size = 32_000
    min_count: Count = 2
    specials: tuple[str, ...] = ()

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the joins of `texts`; ConfigError where `size` has no room for bytes and specials."""
        lib, roles = library(), roles_of(self.name, self.size, self.specials)
        trainer = lib.trainers.BpeTrainer(
            vocab_size=self.size - len(roles), min_frequency=self.min_count, show_progress=False,
            special_tokens=[], initial_alphabet=sorted(letters()),
        )  # fmt: skip
        return self.fitted(with_specials(self.train(as_bytes(lib.Tokenizer(lib.models.BPE())), trainer, texts), roles))


@tokenizers.register("unigram")
@dataclass(frozen=True)
class Unigram(ByteLevel):
    """A unigram language model of sub-words (Kudo 2018, arXiv:1804.10959) over UTF-8 bytes; lossless.

    Fitting takes many frequent sub-words and drops those that the text's likelihood needs least, until `size` are
    left; encoding is the most probable division (Viterbi). This is SentencePiece's model without its normalisation:
    SentencePiece itself, which changes text, is the tokenizer `sentencepiece`. Ids: pieces by falling probability,
    the end of text, the other specials.

    The library sums expectations in a different order each time; log probabilities are therefore kept to 6
    decimals, so that the same texts give the same vocabulary.

    Args:
      size: number of ids at most, V, the specials among them; fewer where the text has no more sub-words.
      longest: bytes of the longest piece.
      specials: roles of further ids that stand for no text, such as `mask`, behind the end of text.
    """

    name: ClassVar[str] = "unigram"
    TINY: ClassVar[str] = "unigram.size = 307"

    size: Size = 32_000
    longest: Count = 16
    specials: tuple[str, ...] = ()

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the sub-words of `texts`; ConfigError where `size` has no room for bytes and specials."""
        lib, roles = library(), roles_of(self.name, self.size, self.specials)
        trainer = lib.trainers.UnigramTrainer(
            vocab_size=self.size - len(roles), max_piece_length=self.longest, show_progress=False,
            special_tokens=[], initial_alphabet=sorted(letters()),
        )  # fmt: skip
        found = self.train(as_bytes(lib.Tokenizer(lib.models.Unigram())), trainer, texts)
        exact = Vocabulary.read(_canonical(found.to_str()), {}, {}).rust
        return self.fitted(with_specials(exact, roles))


def roles_of(name: str, size: int, specials: tuple[str, ...]) -> tuple[str, ...]:
    """The roles of all special ids; ConfigError where they and the bytes do not fit into `size`."""
    roles = ("end_of_text", *specials)
    check_roles(name, roles)
    if size < 256 + len(roles):
        raise ConfigError(f"{name}.size = {size}: 256 bytes and {len(roles)} specials need {256 + len(roles)}.")
    return roles


def _canonical(text: str) -> str:
    """A unigram model's tokenizer.json without what differs from one training to the next.

    Those are the last bits of the scores, the order of pieces with equal scores, and which byte gets which of the
    scores just above the lowest one that the trainer hands out to bytes that the model would not have kept.
    """
    whole = json.loads(text)
    vocabulary = whole["model"]["vocab"]
    lowest = min(score for _, score in vocabulary)
    scores = {piece: round(lowest if _is_filler(piece, score - lowest) else score, 6) for piece, score in vocabulary}
    whole["model"]["vocab"] = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    return json.dumps(whole)


def _is_filler(piece: str, above: float) -> bool:
    steps = above / _FILLER
    return len(piece) == 1 and steps < 256.5 and abs(steps - round(steps)) < 1e-3
