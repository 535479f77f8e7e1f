"""WordPiece, as BERT has it: words are divided into the longest pieces that are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from lmlab.data.tokenizers.hugging_face import HuggingFace, Vocabulary, check_roles, library
from lmlab.errors import ConfigError
from lmlab.ranges import Count
from lmlab.registry import tokenizers

if TYPE_CHECKING:
    import numpy as np

CONTINUES = "##"

_NAMES = {"pad": "[PAD]", "unknown": "[UNK]", "classify": "[CLS]", "separator": "[SEP]", "mask": "[MASK]"}


@tokenizers.register("wordpiece")
@dataclass(frozen=True)
class WordPiece(HuggingFace):
    """WordPiece with BERT's basic tokenisation (Devlin et al. 2019, arXiv:1810.04805, and its code); lossy.

    Control characters go, white space is one space, Chinese characters and punctuation are words of their own, and
    with `lower_case` accents go too. A word is then divided from the left, each time by the longest known piece; a
    word that cannot be, or has more than 100 characters, is one unknown id. `##` marks pieces inside a word:
      "unaffable!" → "un", "##aff", "##able", "!"

    Fitting joins frequent pairs, as `bpe` does, from the most frequent characters (Google's own trainer is not
    public). The same texts give the same vocabulary. Ids: the specials, then the pieces.

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
        lib, names = library(), [_NAMES.get(role, f"[{role.upper()}]") for role in self.specials]
        rust = lib.Tokenizer(lib.models.WordPiece(unk_token=_NAMES["unknown"], max_input_chars_per_word=100))
        rust.normalizer = lib.normalizers.BertNormalizer(lowercase=self.lower_case)
        rust.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
        rust.decoder = lib.decoders.WordPiece(prefix=CONTINUES, cleanup=False)
        trainer = lib.trainers.WordPieceTrainer(
            vocab_size=self.size, min_frequency=self.min_count, limit_alphabet=self.alphabet, show_progress=False,
            special_tokens=names, continuing_subword_prefix=CONTINUES,
        )  # fmt: skip
        trained = self.train(rust, trainer, texts)
        ids = {role: trained.token_to_id(name) for role, name in zip(self.specials, names, strict=True)}
        ids.setdefault("end_of_text", ids.get("separator", 0))
        return self.fitted(Vocabulary(trained, ids))

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
        if self.size <= len(self.specials):
            raise ConfigError(f"{self.name}.size = {self.size}: the specials alone are {len(self.specials)}.")
