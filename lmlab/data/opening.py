"""Datasets opened for a loss: checked against it, their tokenizer fitted, their examples on the way to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmlab.contracts import Dataset, Document, Text, TokenBatch, Tokenizer, Tokens
from lmlab.data.datasets.mixture import Mixture
from lmlab.data.datasets.tasks import Tasks
from lmlab.data.features import Overlong, Packing, Rows, Setting, UnseenLabel, conversion
from lmlab.data.features.buckets import Bucketed
from lmlab.data.features.mixing import Mixed
from lmlab.data.fingerprints import digest_json
from lmlab.data.joint import JointData
from lmlab.data.loader import Data
from lmlab.errors import ConfigError
from lmlab.examples import IDS, texts_of
from lmlab.registry import name_of


def open_data(
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    *,
    seq_len: int,
    source_len: int | None = None,
    packing: Packing = "windows",
    overlong: Overlong = "refuse",
    unseen_label: UnseenLabel = "refuse",
    buckets: Sequence[int] = (),
    global_batch_size: int,
    seed: int = 0,
    max_examples: int | None = None,
    reads: type | Sequence[type] = TokenBatch,
    of_loss: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    saved_tokenizer: Mapping[str, Any] | None = None,
) -> Data | JointData:
    """A dataset made ready for a loss that reads batches of type `reads`.

    Several datasets (`tasks`) are each made ready for a loss; `reads` and `of_loss` are then those of each of them.

    Args:
      dataset: where the examples come from.
      tokenizer: for datasets of text; fitted on the training examples in use unless `saved_tokenizer` is given. A
        dataset that was made with a tokenizer has it, fitted, as its `tokenizer`, which serves where this is None.
      seq_len: T.
      source_len, packing, overlong, unseen_label: see `features.Setting`.
      buckets: widths below `seq_len` of training batches that hold short rows alone; see `features.buckets`.
      global_batch_size: rows per batch, B, over all processes.
      seed: decides the order of the training rows.
      max_examples: only so many first training examples, chosen before anything is shuffled.
      reads: the loss's batch type.
      of_loss: numbers of the loss that rows are made by.
      saved_tokenizer: what `to_json` gave when a run began.

    Raises:
      ConfigError: the dataset, the tokenizer and the loss do not fit.
      DataError: a corpus that cannot serve.
    """
    facts: dict[str, Any] = {
        "packing": packing,
        "seq_len": seq_len,
        "source_len": source_len,
        "overlong": overlong,
        "unseen_label": unseen_label,
        "buckets": list(buckets),
        "global_batch_size": global_batch_size,
        "seed": seed,
        "max_examples": max_examples,
    }
    if isinstance(dataset, Tasks):
        return _open_tasks(dataset, tokenizer, facts, reads, of_loss, saved_tokenizer)
    assert isinstance(reads, type) and not isinstance(of_loss, Sequence), "one dataset is read by one loss"
    parts = _parts(dataset)
    for part in parts:
        conversion(part.example, reads)
        _check_fit(name_of(part), part, tokenizer, max_examples)
    if packing == "contiguous":
        _check_contiguous(dataset, reads, buckets)
    tokenizer = _fitted(tokenizer, parts, max_examples, saved_tokenizer)
    setting = Setting(
        seq_len=seq_len,
        tokenizer=tokenizer,
        source_len=source_len,
        packing=packing,
        lanes=global_batch_size,
        overlong=overlong,
        unseen_label=unseen_label,
        labels=tuple(getattr(dataset, "labels", ())),
        tags=tuple(getattr(dataset, "tags", ())),
        seed=seed,
        ids=getattr(dataset, "special_ids", {}),
        of_loss=of_loss or {},
    )

    widths = _widths(buckets, max(seq_len, source_len or 0)) if buckets else ()
    made = _Opened(dataset, parts, setting, reads, max_examples, widths, global_batch_size)
    if of_loss:
        facts["of_loss"] = dict(of_loss)
    return Data(name_of(dataset), dataset, setting, made.rows, facts)


def _open_tasks(
    dataset: Tasks,
    tokenizer: Tokenizer | None,
    settings: Mapping[str, Any],
    reads: type | Sequence[type],
    of_loss: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    saved: Mapping[str, Any] | None,
) -> JointData:
    """Each of the datasets, opened for its loss, with a tokenizer that is fitted on all of them."""
    count = len(dataset.datasets)
    if settings["packing"] == "contiguous" or settings["buckets"]:
        chosen = "buckets" if settings["buckets"] else "packing = 'contiguous'"
        raise ConfigError(f"experiment.{chosen} is for one dataset; 'tasks' has {count}. Unset it.")
    fitted = _fitted(tokenizer, _parts(dataset), settings["max_examples"], saved)
    if tokenizer is not None and fitted is not None:  # else each dataset brings the one that all were made with
        saved = fitted.to_json()
    each = [reads] * count if isinstance(reads, type) else reads
    told = of_loss if isinstance(of_loss, Sequence) else [of_loss] * count
    opened: list[Any] = [
        open_data(part, tokenizer, **settings, reads=kind, of_loss=numbers, saved_tokenizer=saved)
        for part, kind, numbers in zip(dataset.datasets, each, told, strict=True)
    ]
    return JointData(name_of(dataset), opened)


def _parts(dataset: Any) -> tuple[Dataset, ...]:
    """The datasets whose examples become rows."""
    if isinstance(dataset, Tasks):
        return tuple(part for task in dataset.datasets for part in _parts(task))
    return dataset.parts if isinstance(dataset, Mixture) else (dataset,)


def _fitted(
    tokenizer: Tokenizer | None,
    parts: Sequence[Dataset],
    max_examples: int | None,
    saved: Mapping[str, Any] | None,
) -> Tokenizer | None:
    """The tokenizer as it was saved, or fitted on the training examples in use; without one, that of the datasets."""
    if tokenizer is None:
        return _brought(parts)
    if saved is not None:
        return tokenizer.from_json(saved)
    # A corpus that is missing is missed here, also by a tokenizer that reads nothing of it.
    taken = [part.split("train")[:max_examples] for part in parts]
    return tokenizer.fit(text for examples in taken for example in examples for text in texts_of(example))


@dataclass(frozen=True)
class _Opened:
    """How rows are made of a dataset's splits, each when it is asked for.

    Args:
      dataset: a mixture, or its only part.
      parts: the datasets whose examples become rows.
      setting: see there.
      reads: the loss's batch type.
      max_examples: only so many first training examples.
      widths: of the buckets of training rows; none where all rows are alike.
      batch: rows per global batch.
    """

    dataset: Dataset
    parts: Sequence[Dataset]
    setting: Setting
    reads: type
    max_examples: int | None
    widths: tuple[int, ...]
    batch: int

    def rows(self, split: str, training: bool) -> Rows:
        """The rows of a split, of all parts."""
        found = [self._rows_of(part, split, training) for part in self.parts]
        made: Rows = found[0]
        if isinstance(self.dataset, Mixture):
            made = Mixed(found, [name_of(part) for part in self.parts], self.dataset.plan)
        return Bucketed(made, self.widths, self.batch) if self.widths and training else made

    def _rows_of(self, part: Dataset, split: str, training: bool) -> Rows:
        examples = part.split(split)
        if split == "train" and self.max_examples is not None:
            if len(examples) < self.max_examples:
                name = name_of(part)
                raise ConfigError(f"experiment.max_examples = {self.max_examples}, but '{name}' has {len(examples)}.")
            examples = examples[: self.max_examples]
        return conversion(part.example, self.reads)(examples, self.setting, training)


def _widths(buckets: Sequence[int], longest: int) -> tuple[int, ...]:
    """The widths of all buckets; ConfigError unless they rise and are below the longest row."""
    if list(buckets) != sorted(set(buckets)) or buckets[-1] >= longest or buckets[0] < 1:
        raise ConfigError(f"experiment.buckets = {list(buckets)}: widths must rise, and be below the row of {longest}.")
    return (*buckets, longest)


def _brought(parts: Sequence[Dataset]) -> Tokenizer | None:
    """The fitted tokenizer that the datasets were made with; None where they have none."""
    found = [getattr(part, "tokenizer", None) for part in parts]
    if len({None if tokenizer is None else digest_json(tokenizer.to_json()) for tokenizer in found}) > 1:
        raise ConfigError(
            f"{', '.join(map(name_of, parts))} were made with different tokenizers, or some with none: their ids do "
            "not mean the same. Prepare them with one."
        )
    return found[0]


def _check_fit(name: str, dataset: Dataset, tokenizer: Tokenizer | None, max_examples: int | None) -> None:
    if dataset.example not in IDS and tokenizer is None and getattr(dataset, "tokenizer", None) is None:
        raise ConfigError(f"the dataset '{name}' yields text: set experiment.tokenizer, for example to @bytes.")
    if dataset.example in IDS and tokenizer is not None:
        raise ConfigError(f"the dataset '{name}' yields ids, not text: leave experiment.tokenizer unset.")
    if max_examples is not None and dataset.example is Tokens:
        raise ConfigError(f"experiment.max_examples counts documents; the dataset '{name}' has streams of ids.")
    if max_examples is not None and max_examples < 1:
        raise ConfigError(f"experiment.max_examples = {max_examples}: give at least 1, or None for all.")


def _check_contiguous(dataset: Dataset, reads: type, buckets: Sequence[int]) -> None:
    """ConfigError unless the examples make one stream, of which every batch goes on where the one before it ended."""
    way_out = "Set experiment.packing = 'windows'."
    if isinstance(dataset, Mixture) or buckets:
        chosen = "experiment.buckets" if buckets else "a mixture"
        raise ConfigError(f"experiment.packing = 'contiguous': {chosen} chooses the rows of each batch anew. {way_out}")
    if reads is not TokenBatch or dataset.example not in (Text, Document, Tokens):
        raise ConfigError(
            f"experiment.packing = 'contiguous' reads on through a stream of next-token windows; the dataset "
            f"'{name_of(dataset)}' gives {dataset.example.__name__}, of which a {reads.__name__} is made. {way_out}"
        )
