"""Any tokenizer.json, the file that Hugging Face's libraries write beside a model."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lmlab.data.chat_template import ChatTemplate, read_chat_template
from lmlab.data.tokenizers.byte_level import letters
from lmlab.data.tokenizers.hugging_face import HuggingFace, Vocabulary
from lmlab.errors import ConfigError, DataError
from lmlab.ranges import Count
from lmlab.registry import near_names, tokenizers

if TYPE_CHECKING:
    import numpy as np

ROLES: dict[str, str] = {
    "<|end_of_text|>": "end_of_text", "<|endoftext|>": "end_of_text", "<eos>": "end_of_text", "</s>": "end_of_text",
    "[EOS]": "end_of_text", "<unk>": "unknown", "[UNK]": "unknown", "[MASK]": "mask", "<mask>": "mask",
    "[SEP]": "separator", "<sep>": "separator", "[CLS]": "classify", "<cls>": "classify", "[PAD]": "pad",
    "<pad>": "pad", "<bos>": "beginning", "<s>": "beginning", "[BOS]": "beginning", "<|begin_of_text|>": "beginning",
}  # fmt: skip
"""What special tokens are for, by their usual names."""

_ENDS = ("end_of_text", "separator")
_OURS = re.compile(r"<\|(\w+)\|>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"


@tokenizers.register("hf")
@dataclass(frozen=True)
class TokenizerFile(HuggingFace):
    """A tokenizer.json of Hugging Face's, from a model or from `lmlab tokenizer train`; it promises what the file does.

    Nothing is fitted. A run keeps the file's whole content and its sha256, and reads it from its own folder from then
    on; the chat template that stands beside it (chat_template.jinja, tokenizer_config.json), too. Special tokens get
    the roles that their names usually have (`[MASK]` is `mask`, `</s>` is `end_of_text`), `<|name|>` the role `name`,
    others their name; without an end of text, the separator stands for it. Special tokens in a text are not parsed,
    nothing is put around texts, and the file's truncation and padding are switched off.

    Bytes: exact for byte-level files; for WordPiece and SentencePiece-like ones, a piece that begins a word stands
    for it with the space before. `lmlab tokenizer show` tells the bytes behind a text's ids and those of the text.

    Args:
      path: the file.
      roles: token by role, for tokens with other names: `{'classify': '<s>'}`; wins over what names usually mean.
      ids: number of ids, where a model has more than the file names; those behind stand for nothing. None: the file's.
    """

    name: ClassVar[str] = "hf"
    cut_at_spaces: ClassVar[bool] = False  # what a file does with spaces is not known
    TINY: ClassVar[str] = "hf.path = '{folder}/tokenizer.json'"

    path: str
    roles: Mapping[str, str] | None = None
    ids: Count | None = None

    @property
    def vocab_size(self) -> int:
        """Number of ids, V, those that stand for nothing included."""
        return super().vocab_size if self.ids is None else self.ids

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for; none for special ids and those that the file does not name."""
        named = super().token_bytes()
        return named + [b""] * (self.vocab_size - len(named))

    def fit(self, texts: Iterable[str]) -> Self:
        """This tokenizer as the file has it; DataError where it cannot be read, ConfigError where no token ends."""
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {error.strerror}. Name a tokenizer.json by hf.path."
            ) from None
        facts: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest()}
        template = read_chat_template(Path(self.path).parent)
        if template is not None:
            facts["chat"] = {"template": template.source, "tokens": dict(template.tokens)}
        try:
            vocabulary = Vocabulary.read(content.decode(), {}, facts)
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: {error}") from None
        if self.ids is not None and self.ids < len(vocabulary.pieces):
            raise ConfigError(f"hf.ids = {self.ids}: {self.path} names {len(vocabulary.pieces)} ids.")
        return self.fitted(Vocabulary(vocabulary.rust, self._special_ids(vocabulary), facts))

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How the model wants conversations written; None where nothing beside the file said so."""
        chat = self.vocabulary.facts.get("chat")
        return None if chat is None else ChatTemplate(chat["template"], chat["tokens"])

    def piece_bytes(self, piece: str) -> bytes:
        """The bytes of a piece, by what the file's decoder makes of it."""
        return self._read_piece(piece)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids` as the file's decoder writes it, without special ids."""
        special = set(self.special_ids.values())
        kept = [int(i) for i in ids if int(i) not in special]
        return str(self.vocabulary.rust.decode(kept, skip_special_tokens=False))

    def _special_ids(self, vocabulary: Vocabulary) -> dict[str, int]:
        """Ids by role, of all special tokens of a file."""
        added = sorted(vocabulary.rust.get_added_tokens_decoder().items())
        special = _unknown_of(vocabulary) | {token.content: i for i, token in added if token.special}
        found = self._chosen(vocabulary)
        for token, i in special.items():
            if i not in found.values():
                role = role_of(token)
                found[token if role in found else role] = i
        ends = next((found[role] for role in _ENDS if role in found), None)
        if ends is None:
            raise ConfigError(
                f"{self.path}: no token is known to end documents; its special tokens are "
                f"{', '.join(special) or 'none'}. Name one: hf.roles = {{'end_of_text': '...'}}"
            )
        return {"end_of_text": ends} | found

    def _chosen(self, vocabulary: Vocabulary) -> dict[str, int]:
        """Ids of the tokens that `roles` names; ConfigError where there is no such token."""
        found = {}
        for role, token in (self.roles or {}).items():
            i = vocabulary.rust.token_to_id(token)
            if i is None:
                near = near_names(token, vocabulary.pieces)
                raise ConfigError(f"hf.roles: {self.path} has no token '{token}'.{near}")
            found[role] = i
        return found

    @functools.cached_property
    def _read_piece(self) -> Any:
        whole = json.loads(self.vocabulary.rust.to_str())
        plain = {token["content"] for token in whole["added_tokens"]}
        how = dict(_parts(whole["decoder"])) | {f"{kind} before": part for kind, part in _parts(whole["pre_tokenizer"])}
        mark = how.get("WordPiece", {}).get("prefix") or whole["model"].get("continuing_subword_prefix")
        suffix = how.get("BPEDecoder", {}).get("suffix") or whole["model"].get("end_of_word_suffix")
        spaces = "Metaspace" in how or "Metaspace before" in how or _SPACE in str(how.get("Replace"))

        def read(piece: str) -> bytes:
            if piece in plain:
                return piece.encode()
            if "ByteLevel" in how or "ByteLevel before" in how:
                return b"".join(bytes([letters()[c]]) if c in letters() else c.encode() for c in piece)
            if "ByteFallback" in how and (byte := _BYTE.fullmatch(piece)):
                return bytes([int(byte[1], 16)])
            if spaces:
                return piece.replace(_SPACE, " ").encode()
            if suffix:
                return (f"{piece.removesuffix(suffix)} " if piece.endswith(suffix) else piece).encode()
            if mark:
                return (piece.removeprefix(mark) if piece.startswith(mark) else f" {piece}").encode()
            return (f" {piece}" if whole["model"]["type"] == "WordLevel" else piece).encode()

        return read


def role_of(token: str) -> str:
    """The role of a special token by its name."""
    ours = _OURS.fullmatch(token)
    return ROLES.get(token) or (ours[1] if ours else token)


def _unknown_of(vocabulary: Vocabulary) -> dict[str, int]:
    """The token of a file that its model puts for what it does not know, unless it has another role too."""
    model = json.loads(vocabulary.rust.to_str())["model"]
    token = model.get("unk_token")
    if model.get("unk_id") is not None:
        token = model["vocab"][model["unk_id"]][0]
    i = None if token is None else vocabulary.rust.token_to_id(token)
    return {} if i is None or role_of(token) not in ("unknown", token) else {token: i}


def _parts(component: Mapping[str, Any] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parts of a decoder or pre-tokenizer by type, those within a sequence too."""
    if component is not None:
        yield component["type"], component
        for part in [*component.get("decoders", ()), *component.get("pretokenizers", ())]:
            yield from _parts(part)
