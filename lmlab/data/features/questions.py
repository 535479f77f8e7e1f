"""Questions about a text: the answer as a stretch of it, or as one of several choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmlab.contracts import ChoiceBatch, Question, SpanBatch
from lmlab.data.features.encoding import encoded
from lmlab.data.features.labelled import marked_parts
from lmlab.data.features.padded import Padded, Ragged, admitted
from lmlab.data.features.rows import Batch, Rows, Setting, converts
from lmlab.errors import DataError


@converts(Question, SpanBatch)
def questions_to_spans(examples: Sequence[Question], setting: Setting, training: bool) -> Rows:
    """Question and context as two parts; the first answer's first and last token (Devlin et al. 2019, section 4.2).

    Both are 0, the place of `classify`, where there is no answer. The answer's tokens are all that hold one of its
    characters. An overlong example loses the end of its context, then of its question; an answer that is cut off is
    counted, and such an example is left out of training.

    Example: Question("a?", "b cd", ("cd",), (2,)), Question("b", "ab", ()), seq_len=9
      tokens      = [[3 a ? 2 b _ c d 2], [3 b 2 a b 2 0 0 0]]
      segment_ids = [[1 1 1 1 1 1 1 1 1], [1 1 1 1 1 1 0 0 0]]
      type_ids    = [[0 0 0 0 1 1 1 1 1], [0 0 0 1 1 1 0 0 0]]
      starts      = [6 0]
      ends        = [7 0]
      weights     = [1 1]
    """
    _refuse_without(examples, "starts", "a stretch of the context")
    questions = list(encoded(examples, [example.question for example in examples], setting.text_tokenizer))
    contexts = list(encoded(examples, [example.context for example in examples], setting.text_tokenizer))
    lengths = (len(a) + len(b) + 3 for a, b in zip(questions, contexts, strict=True))
    kept, notes = admitted(examples, lengths, setting.seq_len, setting, "question with its context")
    tokens, types, places = [], [], []
    lost = 0
    for i in kept:
        question = questions[i][: max(setting.seq_len - 3, 0)]
        context = contexts[i][: max(setting.seq_len - 3 - len(question), 0)]
        found = _answer_tokens(examples[i], setting)
        gone = found is not None and found[1] >= len(context)
        lost += gone
        if gone and training:
            continue
        ids, kinds = marked_parts((question, context), setting)
        first = len(question) + 2
        tokens.append(ids)
        types.append(kinds)
        places.append((0, 0) if found is None or gone else (first + found[0], first + found[1]))
    ragged = {
        "tokens": Ragged(tokens, setting.seq_len),
        "segment_ids": Ragged([np.ones(len(row), np.int32) for row in tokens], setting.seq_len),
        "type_ids": Ragged(types, setting.seq_len),
    }
    spans = np.array(places, np.int32).reshape(-1, 2)
    whole = {"starts": spans[:, 0], "ends": spans[:, 1], "weights": np.ones(len(places), np.float32)}
    return Padded(ragged, whole, notes | ({"answers cut off": lost} if lost else {}))


def _answer_tokens(example: Question, setting: Setting) -> tuple[int, int] | None:
    """First and last token of the context that hold the first answer."""
    if not example.answers:
        return None
    start = example.starts[0]
    offsets = setting.text_tokenizer.offsets(example.context)
    holds = (
        (offsets[:, 1] > start) & (offsets[:, 0] < start + len(example.answers[0])) & (offsets[:, 0] < offsets[:, 1])
    )
    if not holds.any():
        raise DataError(f"{example.source}: no token of the context holds the answer '{example.answers[0]}'.")
    found = np.flatnonzero(holds)
    return int(found[0]), int(found[-1])


class Choices:
    """One example to C rows of tokens, padded with zeros; examples with fewer choices have empty ones.

    Args:
      tokens: the text with each choice, of every example.
      labels: number of the right choice.
      seq_len: T.
      notes: see `Rows`.
    """

    def __init__(
        self, tokens: Sequence[Sequence[np.ndarray]], labels: np.ndarray, seq_len: int, notes: dict[str, float]
    ) -> None:
        self._count = max(map(len, tokens), default=0)
        empty = np.empty(0, np.int32)
        flat = [ids for row in tokens for ids in (*row, *[empty] * (self._count - len(row)))]
        self._flat, self._labels = Ragged(flat, seq_len), labels
        self.targets = len(labels)
        self.notes = {"padding": 1 - len(self._flat.values) / max(len(flat) * seq_len, 1), **notes}

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def ids(self) -> np.ndarray:
        """All ids that are read."""
        return self._flat.values

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens` and `segment_ids` (B, C, T), `labels` and `weights` (B,)."""
        each = (rows[:, None] * self._count + np.arange(self._count)).reshape(-1)
        shape = (len(rows), self._count, self._flat.width)
        there = np.arange(self._flat.width) < self._flat.lengths[each][:, None]
        return {
            "tokens": self._flat.gather(each).reshape(shape),
            "segment_ids": there.astype(np.int32).reshape(shape),
            "labels": self._labels[rows],
            "weights": np.ones(len(rows), np.float32),
        }


@converts(Question, ChoiceBatch)
def questions_to_choices(examples: Sequence[Question], setting: Setting, training: bool) -> Rows:
    """The context, then the question with each choice in the place of its blank, or behind it (Hill et al. 2016).

    The blank is a run of underscores. Of an overlong example the context loses its beginning, which is farthest away.

    Example: Question("c ___", "ab", ("a",), choices=("b", "a")), seq_len=9
      tokens      = [[[3 a b 2 c _ b 2 0], [3 a b 2 c _ a 2 0]]]
      segment_ids = [[[1 1 1 1 1 1 1 1 0], [1 1 1 1 1 1 1 1 0]]]
      labels      = [1]
      weights     = [1]
    """
    _refuse_without(examples, "choices", "one of several choices")
    contexts = list(encoded(examples, [example.context for example in examples], setting.text_tokenizer))
    filled = [[_filled_in(example.question, choice) for choice in example.choices] for example in examples]
    flat = [(example, text) for example, texts in zip(examples, filled, strict=True) for text in texts]
    ids = encoded([example for example, _ in flat], [text for _, text in flat], setting.text_tokenizer)
    questions = [[next(ids) for _ in texts] for texts in filled]
    lengths = (len(context) + max(map(len, each)) + 3 for context, each in zip(contexts, questions, strict=True))
    kept, notes = admitted(examples, lengths, setting.seq_len, setting, "context with its question")
    tokens = [[_choice(contexts[i], question, setting) for question in questions[i]] for i in kept]
    labels = np.array([examples[i].choices.index(examples[i].answers[0]) for i in kept], np.int32)
    return Choices(tokens, labels, setting.seq_len, notes)


def _choice(context: np.ndarray, question: np.ndarray, setting: Setting) -> np.ndarray:
    question = question[: max(setting.seq_len - 3, 0)]
    room = max(setting.seq_len - 3 - len(question), 0)
    return marked_parts((context[max(len(context) - room, 0) :], question), setting)[0]


def _filled_in(question: str, choice: str) -> str:
    """The question with the choice for its first run of at least three underscores, or behind it."""
    before, blank, after = question.partition("___")
    return f"{before}{choice}{after.lstrip('_')}" if blank else f"{question} {choice}"


def _refuse_without(examples: Sequence[Question], field: str, kind: str) -> None:
    for number, example in enumerate(examples):
        answered = bool(example.answers)
        if (field == "starts" and answered and not example.starts) or (field == "choices" and not example.choices):
            raise DataError(
                f"{example.source or f'example {number}'}: its answer is not {kind}, which this loss reads."
            )
