"""Questions with several choices, in files of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import ChoiceBatch, Question
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Malformed, json_lines, text_of
from lmlab.registry import datasets


@datasets.register("choices_jsonl")
@dataclass(frozen=True)
class ChoicesJsonl(FileSplits):
    """Multiple choice and cloze questions, one JSON object to a line.

    `{"context": "...", "question": "What ___?", "choices": ["one", "two"], "answer": "two"}`: a run of underscores is
    the blank that a choice fills; without one, choices stand behind the question. An example's source is where its line
    stands. Splits without files of their own are taken out of `train` by the md5 of the context.

    Malformed is a line without these texts, with fewer than two choices, with two that are equal, or whose answer is
    none of them.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory; `.gz`, `.bz2` and `.xz` too.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the contexts that becomes the validation split.
      test_share: part of the contexts that becomes the test split.
      malformed: `refuse` names the first malformed line; `drop` leaves such lines out and counts them.
    """

    example: ClassVar[type] = Question
    usual: ClassVar[type] = ChoiceBatch
    name: ClassVar[str] = "choices_jsonl"
    TINY: ClassVar[str] = """
    choices_jsonl.train = '{folder}/choices.jsonl'
    choices_jsonl.valid_share = 0.2
    choices_jsonl.test_share = 0.2
    """

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[Question]:
        for where, row in json_lines(file, left_out):
            with left_out.row(where):
                yield _question(row, where)


def _question(row: Any, where: str) -> Question:
    """The question of a line; Malformed where it is none."""
    if not isinstance(row, dict):
        raise Malformed("no object.")
    question, context, answer = (text_of(row.get(name), name) for name in ("question", "context", "answer"))
    given = row.get("choices")
    choices = tuple(text_of(choice, "choice") for choice in given) if isinstance(given, list) else ()
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise Malformed("'choices' are no list of at least two different texts.")
    if answer not in choices:
        raise Malformed(f"the answer {answer!r} is none of the choices {', '.join(map(repr, choices))}.")
    return Question(question, context, (answer,), choices=choices, source=where)
