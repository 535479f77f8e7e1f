"""Conversations in files of the user's: what instruction tuning learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Conversation
from lmlab.data.answers import ASSISTANT
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Malformed, json_lines, text_of
from lmlab.registry import datasets


@datasets.register("conversations_jsonl")
@dataclass(frozen=True)
class ConversationsJsonl(FileSplits):
    """Conversations, one JSON object to a line, of which a model learns what the assistant says.

    `{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}`, or of one question
    and its answer `{"prompt": "Hi", "completion": "Yes?"}`; other members are not looked at. An example's source is
    where its line stands. Splits without files of their own are taken out of `train` by the md5 of what stands before
    the first answer.

    Malformed is a line without these, a turn without a role or text, and a conversation in which the assistant says
    nothing, or says something first.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory; `.gz`, `.bz2` and `.xz` too.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the conversations that becomes the validation split.
      test_share: part of the conversations that becomes the test split.
      malformed: `refuse` names the first malformed line; `drop` leaves such lines out and counts them.
    """

    example: ClassVar[type] = Conversation
    name: ClassVar[str] = "conversations_jsonl"
    TINY: ClassVar[str] = """
    conversations_jsonl.train = '{folder}/conversations.jsonl'
    conversations_jsonl.valid_share = 0.2
    conversations_jsonl.test_share = 0.2
    """

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[Conversation]:
        for where, row in json_lines(file, left_out):
            with left_out.row(where):
                yield _conversation(row, where)


def _conversation(row: Any, where: str) -> Conversation:
    """The conversation of a line; Malformed where it is none."""
    if not isinstance(row, dict):
        raise Malformed("no object.")
    turns = row.get("messages")
    if turns is None:
        if "prompt" not in row or "completion" not in row:
            raise Malformed("neither 'messages' nor 'prompt' and 'completion'.")
        contents = text_of(row["prompt"], "prompt"), text_of(row["completion"], "completion")
        return Conversation(("user", ASSISTANT), contents, where)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Malformed("'messages' is no list of objects.")
    roles = tuple(text_of(turn.get("role"), "role") for turn in turns)
    if ASSISTANT not in roles:
        raise Malformed("the assistant says nothing, so that there is nothing to learn.")
    if roles[0] == ASSISTANT:
        raise Malformed("the assistant speaks first: there is nothing that it answers.")
    return Conversation(roles, tuple(text_of(turn.get("content"), "content") for turn in turns), where)
