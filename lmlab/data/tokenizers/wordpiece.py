"""WordPiece, as BERT has it: words are divided into the longest pieces that are known."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lmlab.data.tokenizers.hugging_face import HuggingFace, Vocabulary, check_roles, library, refuse_surrogates
from lmlab.errors import ConfigError
from lmlab.ranges import Count
from lmlab.registry import tokenizers

if TYPE_CHECKING:
    import numpy as np

CONTINUES = "##"
_BEGINS = "\x01"  # stands before every word while pieces are joined; no normalised text holds a control character

_NAMES = {"pad": "[PAD]", "unknown": "[UNK]", "classify": "[CLS]", "separator": "[SEP]", "mask": "[MASK]"}


@tokenizers.register("wordpiece")
@dataclass(frozen=True)
class WordPiece(HuggingFace):
    """WordPiece with BERT's basic tokenisation (Devlin et al. 2019, arXiv:1810.04805, and its code); lossy.

    Control characters go, white space is one space, Chinese characters and punctuation are words of their own, and
    with `lower_case` accents go too. A word is then divided from the left, each time by the longest known piece; a
    word that cannot be, or has more than 100 characters, is one unknown id. `##` marks pieces inside a word:
      "unaffable!" → "un", "##aff", "##able", "!"

    Fitting joins frequent pairs, as `bpe` does, with the beginning of a word as a character of its own (Google's own
    trainer is not public). The same texts give the same vocabulary. Ids: the specials, each character at the
    beginning of a word, each within, then the other pieces in the order of their joins.

    Bytes: a piece that begins a word stands for it with the space before, so that "a, b" counts as "a , b", and the
    bytes of a text's ids are not exactly those of the text: `lmlab tokenizer train` prints both.

    Args:
      size: number of ids at most, V, the specials among them.
      min_count: pairs seen less often are not joined.
      alphabet: how many different characters are kept; words with others are unknown.
      lower_case: lower-case, and without accents: BERT's "uncased".
      specials: roles of the first ids, in their order. `end_of_text` is that of `separator`, unless it is named.
    """

    name: ClassVar[str] = "wordpiece"
    TINY: ClassVar[str] = "wordpiece.size = 131"

    size: Count = 30_522
    min_count: Count = 2
    alphabet: Count = 1000
    lower_case: bool = True
    specials: tuple[str, ...] = ("pad", "unknown", "classify", "separator", "mask")

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the pieces of `texts`; ConfigError where the specials lack a role or do not fit."""
        self._check()
        lib, normalizer, counts = library(), self._normalizer(), collections.Counter[str]()
        rust = lib.Tokenizer(lib.models.BPE())
        rust.normalizer = normalizer
        rust.pre_tokenizer = lib.pre_tokenizers.Sequence([
            lib.pre_tokenizers.BertPreTokenizer(),
            lib.pre_tokenizers.Metaspace(replacement=_BEGINS, prepend_scheme="always", split=False),
        ])  # fmt: skip
        trainer = lib.trainers.BpeTrainer(
            vocab_size=self.size + self.alphabet, min_frequency=self.min_count, show_progress=False, special_tokens=[]
        )
        self.train(rust, trainer, _counting(texts, normalizer, counts))
        kept = [letter for _, letter in sorted((-count, letter) for letter, count in counts.items())][: self.alphabet]
        joined = sorted(rust.get_vocab(with_added_tokens=False).items(), key=lambda pair: pair[1])
        return self.fitted(self._made_of(kept, [piece for piece, _ in joined]))

    def _made_of(self, letters: list[str], joined: list[str]) -> Vocabulary:
        """The vocabulary of specials, letters, and joined pieces in the order in which they were joined."""
        lib, names = library(), [_NAMES.get(role, f"[{role.upper()}]") for role in self.specials]
        single = [*sorted(letters), *(f"{CONTINUES}{letter}" for letter in sorted(letters))]
        if self.size < len(names) + len(single):
            raise ConfigError(
                f"wordpiece.size = {self.size}: {len(names)} specials and {len(letters)} characters, each at the "
                f"beginning of a word and within, need {len(names) + len(single)}. Or lower wordpiece.alphabet."
            )
        known = {_BEGINS, *letters}
        several = [_spelled(piece) for piece in joined if len(piece) > 1 and known.issuperset(piece)]
        pieces = list(dict.fromkeys([*names, *single, *filter(None, several)]))[: self.size]
        ids = {piece: i for i, piece in enumerate(pieces)}
        model = lib.models.WordPiece(vocab=ids, unk_token=_NAMES["unknown"], max_input_chars_per_word=100)
        rust = lib.Tokenizer(model)
        rust.normalizer, rust.pre_tokenizer = self._normalizer(), lib.pre_tokenizers.BertPreTokenizer()
        rust.decoder = lib.decoders.WordPiece(prefix=CONTINUES, cleanup=False)
        rust.add_special_tokens([lib.AddedToken(name, special=True, normalized=False) for name in names])
        roles = {role: ids[name] for role, name in zip(self.specials, names, strict=True)}
        ends = "end_of_text" if "end_of_text" in roles else "separator"
        return Vocabulary(rust, {"end_of_text": roles[ends]} | roles)

    def _normalizer(self) -> Any:
        return library().normalizers.BertNormalizer(lowercase=self.lower_case)

    def piece_bytes(self, piece: str) -> bytes:
        """A piece inside a word as it is, another with the space before it."""
        inside = piece.startswith(CONTINUES) and piece != CONTINUES
        return (piece.removeprefix(CONTINUES) if inside else f" {piece}").encode()

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Words with single spaces between; special ids, and so unknown words, are left out."""
        return super().decode(ids).removeprefix(" ")

    def _check(self) -> None:
        check_roles(self.name, self.specials)
        if "unknown" not in self.specials or not {"separator", "end_of_text"} & set(self.specials):
            raise ConfigError(
                f"{self.name}.specials = {self.specials}: 'unknown' must be among them, and 'separator' or "
                "'end_of_text', which end documents."
            )


def _counting(texts: Iterable[str], normalizer: Any, counts: collections.Counter[str]) -> Iterator[str]:
    """`texts`, while the characters that words can be made of are counted."""
    for text in texts:
        refuse_surrogates([text])
        counts.update("".join(normalizer.normalize_str(text).split()))
        yield text


def _spelled(piece: str) -> str:
    """A joined piece as a WordPiece vocabulary has it; "" for the mere beginning of a word."""
    return piece[1:] if piece.startswith(_BEGINS) else CONTINUES + piece
