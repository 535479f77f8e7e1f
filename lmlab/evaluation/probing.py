"""What a linear classifier finds in a model's frozen states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import numpy as np

from lmlab.contracts import CausalLM, Dataset, LabelledText, TaggedText, TokenEncoder
from lmlab.data.features.labelled import marked_parts
from lmlab.data.features.rows import Setting
from lmlab.errors import ConfigError, DataError, NonFiniteError
from lmlab.evaluation.examples_of import evenly
from lmlab.evaluation.layers import depth, first_blocks
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.totals import library
from lmlab.evaluation.token_scores import batches_by_length
from lmlab.generation.writing import positions
from lmlab.nn.heads import pooled
from lmlab.nn.states import token_states
from lmlab.ranges import Count, Positive, Seed
from lmlab.registry import evaluators, name_of

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.nn.functional import ModelDef
    from lmlab.training.program import Program
    from lmlab.training.state import State

WHOLE = -1
"""The place of what is asked of a whole text."""


class Asked(NamedTuple):
    """One thing that the classifier is to say.

    Attributes:
      row: of the text.
      place: of the state in the row; `WHOLE` is the text's own vector.
      label: the right answer.
      kind: what the control task gives one label to: the word, or the first word of a text.
    """

    row: int
    place: int
    label: str
    kind: str


@evaluators.register("probing")
@dataclass(frozen=True)
class Probing:
    """A linear classifier on frozen states: of words with their tags, or of texts with their labels.

    scikit-learn's LogisticRegression on standardised states, trained on examples of `train` and measured on another
    split. A word's state is that of its first sub-word, of a causal model that of its last, which has read the whole
    word; a text's vector is that of `classification`. States are those after each block of the model's stack, with what
    stands behind the stack (a norm) applied, or else the last ones alone. What a row has no room for is left out.

    Beside the accuracy stand two that say how much of it is in the states: `majority`, the commonest label of the
    training examples; and the control task of Hewitt & Liang 2019 (arXiv:1909.03368), in which each kind of word (each
    first word of a text) has a label that is drawn once, as labels are distributed. A classifier can learn these only
    by heart: `selectivity` is the accuracy minus that of the control task.

    Metrics, each named `<split>/probing/...`: `layer-N/accuracy`, `layer-N/control`, `layer-N/selectivity`, from the
    first block on (`last` in place of `layer-N` where there is no stack); `majority`; `trained_on` and `asked`, how
    many words or texts.

    Args:
      split: on which it is measured.
      dataset: tagged or labelled texts; None: the run's own dataset.
      train_examples: how many examples are learned from, evenly over `train`; None is all of them.
      examples: how many it is measured on, evenly over the split; None is all of them.
      layers: which blocks, from 1 on; none: all of them.
      inverse_penalty: C of the logistic regression: the smaller, the smaller the weights.
      seed: of the control task's labels.
    """

    TINY: ClassVar[str] = """
    experiment.loss = @tagging
    experiment.model = @gpt
    probing.train_examples = 7
    probing.examples = 3
    """

    split: str = "valid"
    dataset: Dataset | None = None
    train_examples: Count | None = 1000
    examples: Count | None = 1000
    layers: tuple[Count, ...] = ()
    inverse_penalty: Positive = 1.0
    seed: Seed = 0

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: the model has no states of text, the data have neither tags nor labels, there is no such layer,
            or scikit-learn is not installed.
          DataError: the dataset has no such split, or nothing of it fits into rows.
        """
        _check_model(program)
        dataset = self._dataset(program)
        layers = self._layers(program)
        library("sklearn.linear_model", "of probing")
        read = Reader(program)
        learned = read.asked(evenly(dataset.split("train"), self.train_examples))
        asked = read.asked(evenly(dataset.split(self.split), self.examples))
        if len({one.label for one in learned.asked}) < 2:
            raise ConfigError("probing needs at least two labels among its training examples.")
        if not asked.asked:
            raise DataError(
                f"probing: rows of {read.room} tokens have room for nothing that is asked in '{self.split}'."
            )

        def measure(state: State) -> dict[str, float]:
            params, found = local_params(program, state), {}
            for name, count in layers.items():
                states = [read.states(params, count, part) for part in (learned, asked)]
                for task, labels in self._tasks(learned, asked).items():
                    found[f"{name}/{task}"] = self._accuracy(states, labels)
                found[f"{name}/selectivity"] = found[f"{name}/accuracy"] - found[f"{name}/control"]
            found |= {"majority": _majority(learned, asked)}
            found |= {"trained_on": len(learned.asked), "asked": len(asked.asked)}
            return {f"{self.split}/probing/{name}": value for name, value in found.items()}

        return measure

    def _dataset(self, program: Program) -> Any:
        found: Any = program.one_dataset.dataset if self.dataset is None else self.dataset
        if found.example not in (TaggedText, LabelledText):
            raise ConfigError(
                f"the evaluator 'probing' reads TaggedText or LabelledText, and the dataset '{name_of(found)}' yields "
                f"{found.example.__name__}. Give it another one: --set 'probing.dataset = @atis_slots()'"
            )
        return found

    def _layers(self, program: Program) -> dict[str, int | None]:
        """Blocks to read, by name; None is all of the model."""
        there = depth(program.model)
        if there is None:
            if self.layers:
                raise ConfigError(
                    f"probing.layers: the model '{program.experiment.model.name}' has no stack of blocks."
                )
            return {"last": None}
        if max(self.layers, default=0) > there:
            raise ConfigError(f"probing.layers = {list(self.layers)}: the model has {there} blocks.")
        return {f"layer-{count}": count for count in self.layers or range(1, there + 1)}

    def _tasks(self, learned: Texts, asked: Texts) -> dict[str, list[np.ndarray]]:
        """The labels to learn and those to find, of the task and of its control."""
        random = np.random.default_rng(self.seed)
        labels = np.array([one.label for one in learned.asked])
        kinds = sorted({one.kind for part in (learned, asked) for one in part.asked})
        control = dict(zip(kinds, random.choice(labels, len(kinds)), strict=True))
        parts = (learned, asked)
        return {
            "accuracy": [np.array([one.label for one in part.asked]) for part in parts],
            "control": [np.array([control[one.kind] for one in part.asked]) for part in parts],
        }

    def _accuracy(self, states: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
        if len(set(labels[0].tolist())) < 2:
            return float((labels[1] == labels[0][0]).mean())
        scale = library("sklearn.preprocessing", "of probing").StandardScaler().fit(states[0])
        made = library("sklearn.linear_model", "of probing").LogisticRegression
        classifier = made(C=self.inverse_penalty, max_iter=1000).fit(scale.transform(states[0]), labels[0])
        return float((classifier.predict(scale.transform(states[1])) == labels[1]).mean())


def _majority(learned: Texts, asked: Texts) -> float:
    ((commonest, _),) = Counter(one.label for one in learned.asked).most_common(1)
    return sum(one.label == commonest for one in asked.asked) / len(asked.asked)


def _check_model(program: Program) -> None:
    model, name = program.abstract_model, program.experiment.model.name
    if not isinstance(model, TokenEncoder | CausalLM) or program.tokenizer is None:
        raise ConfigError(
            f"the evaluator 'probing' needs a TokenEncoder or a CausalLM that reads text; the model '{name}' "
            f"{'is neither' if program.tokenizer else 'reads ids'}."
        )


class Texts(NamedTuple):
    """Texts, and what is asked of them.

    Attributes:
      rows: ids of each text.
      asked: in the order of the rows.
    """

    rows: list[Int[np.ndarray, " n"]]
    asked: list[Asked]


class Reader:
    """Makes rows of examples, and states of rows, with a program's tokenizer and model.

    Args:
      program: of the run.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._causal = not isinstance(program.abstract_model, TokenEncoder)
        self._limit = positions(program.model)
        self.room = self._limit or program.experiment.seq_len
        """Tokens of a row."""
        self._setting = Setting(program.experiment.seq_len, program.tokenizer)
        self._compiled: dict[int | None, Any] = {}

    def asked(self, examples: Sequence[Any]) -> Texts:
        """Rows of tagged or labelled texts."""
        texts = Texts([], [])
        for example in examples:
            ids, found = self._tagged(example) if isinstance(example, TaggedText) else self._labelled(example)
            room = (self.room - 1 - len(ids)) // len(ids)  # something stands before, between and behind
            parts = [part[:room] for part in ids]
            row = marked_parts(parts, self._setting)[0]
            texts.asked.extend(Asked(len(texts.rows), *one) for one in found if one[0] < len(row) - 1)
            texts.rows.append(row)
        return texts

    def _tagged(self, example: TaggedText) -> tuple[list[np.ndarray], list[tuple[int, str, str]]]:
        words = self._setting.text_tokenizer.encode_words(example.words)
        edges = 1 + np.cumsum([0, *map(len, words)])
        places = edges[1:] - 1 if self._causal else edges[:-1]
        found = zip(places.tolist(), example.tags, example.words, strict=True)
        return [np.concatenate(words)], list(found)

    def _labelled(self, example: LabelledText) -> tuple[list[np.ndarray], list[tuple[int, str, str]]]:
        texts = [example.text] if example.second is None else [example.text, example.second]
        first = (example.text.split() or [""])[0]
        return self._setting.text_tokenizer.encode_batch(texts), [(WHOLE, example.label, first)]

    def states(self, params: Mapping[str, Array], blocks: int | None, texts: Texts) -> Float[np.ndarray, "N D"]:
        """One state for each thing that is asked, after so many blocks (None: all of the model).

        Raises:
          NonFiniteError: a state is no number.
        """
        model, own = self._program.model, dict(params)
        if blocks is not None:
            model, own = first_blocks(model, own, blocks)
        if blocks not in self._compiled:
            self._compiled[blocks] = jax.jit(partial(_states, model))
        read, of_row = self._compiled[blocks], _by_row(texts)
        found: list[Any] = [None] * len(texts.asked)
        # Batches have one id more than is read.
        rows = [np.append(row, 0).astype(np.int32) for row in texts.rows]
        for chosen, ids in batches_by_length(rows, self._limit):
            there = np.zeros((len(ids), ids.shape[1] - 1), np.int32)
            for b, i in enumerate(chosen):
                there[b, : len(texts.rows[i])] = 1
            tokens, whole = jax.device_get(read(own, ids[:, :-1], there))
            for b, i in enumerate(chosen):
                for number in of_row[i]:
                    place = texts.asked[number].place
                    found[number] = whole[b] if place == WHOLE else tokens[b, place]
        states = np.asarray(np.stack(found), np.float32)
        if not np.isfinite(states).all():
            raise NonFiniteError("probing: the model's states are not finite.")
        return states


def _by_row(texts: Texts) -> list[list[int]]:
    """The numbers of what is asked of each row."""
    found: list[list[int]] = [[] for _ in texts.rows]
    for number, one in enumerate(texts.asked):
        found[one.row].append(number)
    return found


def _states(
    model: ModelDef[Any], params: Mapping[str, Array], ids: Int[Array, "B T"], there: Int[Array, "B T"]
) -> tuple[Float[Array, "B T D"], Float[Array, "B D"]]:
    bound = model.bind(params)
    states = token_states(bound, ids, segment_ids=there)
    return states, pooled(bound, states, there)
