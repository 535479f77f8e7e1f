"""Conversations for a decoder: all turns are read, and what the model says is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmlab.contracts import Conversation, TokenBatch
from lmlab.data.answers import ASSISTANT, written
from lmlab.data.features.padded import admitted
from lmlab.data.features.rows import Rows, Setting, converts
from lmlab.data.features.stream import Packed, Stream
from lmlab.errors import DataError

Said = tuple[np.ndarray, np.ndarray]
"""Ids of a conversation, and which of them the model says, (n,) each."""


@converts(Conversation, TokenBatch)
def conversations_to_tokens(examples: Sequence[Conversation], setting: Setting, training: bool) -> Rows:
    """Conversations, of which alone what the assistant says is predicted, the end of each of its turns included.

    They are written by the chat template of the tokenizer `hf`; other tokenizers have none, and there each turn ends
    with `separator`, the assistant's with the end-of-text id, and one stands before the first. Conversations stand in
    rows of their own or, with packing `first_fit`, several to a row as segments. Overlong ones lose their ends.

    Example: Conversation(("user", "assistant", "user", "assistant"), ("ab", "c", "a", "d")), seq_len=10
      tokens      = [[0 a b 2 c 0 a 2 d 0]]      # 2 separates
      targets     = [[a b 2 c 0 a 2 d 0 0]]
      weights     = [[0 0 0 1 1 0 0 1 1 0]]
      segment_ids = [[1 1 1 1 1 1 1 1 1 0]]
      positions   = [[0 1 2 3 4 5 6 7 8 0]]
    """
    by_template = hasattr(setting.text_tokenizer, "chat_template")
    said = [_by_template(one, setting) if by_template else _plainly(one, setting) for one in examples]
    kept, notes = admitted(examples, [len(ids) - 1 for ids, _ in said], setting.seq_len, setting, "conversation")
    cut = [tuple(values[: setting.seq_len + 1] for values in said[i]) for i in kept]
    ends = np.cumsum([0, *(len(ids) for ids, _ in cut)])
    ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in cut)])
    learned = np.concatenate([np.empty(0, bool), *(learned for _, learned in cut)])
    documents = np.stack([ends[:-1], ends[1:] - 1], axis=1)
    stream = Stream(ids, documents, documents, learned[1:].astype(np.float32))
    rows = Packed(stream, setting.seq_len, together=setting.packing == "first_fit")
    rows.notes |= notes
    return rows


def _by_template(example: Conversation, setting: Setting) -> Said:
    """Ids of what the tokenizer's chat template writes; the model says a token that begins in what it says."""
    tokenizer = setting.text_tokenizer
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        raise DataError(
            "the tokenizer has no chat template, by which conversations are written. Put chat_template.jinja, or a "
            "tokenizer_config.json that holds it, beside its tokenizer.json."
        )
    turns = zip(example.roles, example.contents, strict=True)
    try:
        text, spans = written(template, [{"role": role, "content": content} for role, content in turns])
    except DataError as error:
        raise DataError(f"{example.source}: {error}" if example.source else str(error)) from None
    ids, places = tokenizer.marked_places(text)  # type: ignore[attr-defined]  # a tokenizer with a template has it
    learned = np.zeros(len(ids), bool)
    for start, stop in spans:
        learned |= (places[:, 0] >= start) & (places[:, 0] < stop) & (places[:, 1] > places[:, 0])
    return ids, learned


def _plainly(example: Conversation, setting: Setting) -> Said:
    """Ids of the turns one after the other."""
    end, separator = setting.special("end_of_text"), setting.special("separator", "end_of_text")
    parts, learned = [np.array([end], np.int32)], [np.zeros(1, bool)]
    try:
        turns = setting.text_tokenizer.encode_batch(example.contents)
    except DataError as error:
        raise DataError(f"{example.source}: {error}" if example.source else str(error)) from None
    for role, ids in zip(example.roles, turns, strict=True):
        own = role == ASSISTANT
        parts += [ids, np.array([end if own else separator], np.int32)]
        learned.append(np.full(len(ids) + 1, own))
    return np.concatenate(parts), np.concatenate(learned)
