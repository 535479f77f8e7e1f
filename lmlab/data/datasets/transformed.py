"""The dataset `transformed`: another dataset, preprocessed and augmented."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lmlab.contracts import Dataset, Transform
from lmlab.data.corpus import SPLITS
from lmlab.data.fingerprints import digest
from lmlab.errors import DataError
from lmlab.ranges import Count, Seed
from lmlab.registry import datasets


@dataclass(frozen=True)
class Rows:
    """The examples of a split on their way through the transforms.

    Args:
      examples: as they are now.
      origins: for each, the number of the example that it comes from and the number of the copy.
      dropped: examples dropped, by transform.
    """

    examples: tuple[Any, ...]
    origins: tuple[tuple[int, int], ...]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def of(self, places: Sequence[int]) -> Rows:
        """Those at `places`."""
        return Rows(tuple(self.examples[i] for i in places), tuple(self.origins[i] for i in places), dict(self.dropped))


@datasets.register("transformed")
@dataclass(frozen=True)
class Transformed:
    """Another dataset with transforms applied to its examples, one transform after the other.

    Those that draw (augmentation) are applied to the splits in `augment` only, where from the first of them on every
    example is `copies` copies, one after the other, after itself if `originals`. What is drawn for a copy depends on
    `seed`, the split, the transform's place, the example's number and the copy's number: it is the same in every
    epoch. What counts first (`fit`) counts in the training examples as they are when its turn comes.

    Labels, tags and splits are those of the other dataset. Examples that a transform drops are counted: `notes`.

    Args:
      dataset: the other one; its examples hold text.
      transforms: in their order.
      augment: the splits that are augmented.
      copies: augmented copies of every example.
      originals: whether the example itself stays too.
      seed: of what is drawn.
    """

    TINY: ClassVar[str] = """
    text_files.train = '{folder}/text/*.txt'
    text_files.valid_share = 0.2
    text_files.test_share = 0.2
    transformed.dataset = @text_files
    transformed.transforms = [@lowercase, @random_swap]
    experiment.loss = @autoregressive
    experiment.tokenizer = @bytes
    """

    dataset: Dataset
    transforms: tuple[Transform, ...]
    augment: tuple[str, ...] = ("train",)
    copies: Count = 1
    originals: bool = False
    seed: Seed = 0
    example: type = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "example", self.dataset.example)
        if strange := sorted(set(self.augment) - set(SPLITS)):
            raise ValueError(f"augment names '{strange[0]}', which is no split: {', '.join(SPLITS)}")
        if (self.copies > 1 or self.originals) and not any(map(_draws, self.transforms)):
            raise ValueError("copies and originals need a transform that draws: without one all copies are the same")

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the other dataset."""
        return tuple(getattr(self.dataset, "labels", ()))

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of the other dataset."""
        return tuple(getattr(self.dataset, "tags", ()))

    @property
    def independent(self) -> bool:
        """Whether the other dataset's splits are."""
        return bool(getattr(self.dataset, "independent", False))

    def split(self, name: str) -> tuple[Any, ...]:
        """The examples of a split, transformed; DataError where there are none, or none are left."""
        return self._rows(name).examples

    @property
    def notes(self) -> dict[str, int]:
        """Examples dropped, as `dropped/<split>/<place>.<transform>`, for every split that is there."""
        splits = [name for name in SPLITS if _has(self, name)]
        return {f"dropped/{split}/{by}": n for split in splits for by, n in self._rows(split).dropped.items()}

    def fingerprint(self) -> dict[str, Any]:
        """The other dataset's, the transforms' settings, and for every split what was dropped and what is left."""
        splits = {name: _facts(self._rows(name)) for name in SPLITS if _has(self.dataset, name)}
        return {
            "dataset": dict(self.dataset.fingerprint()),
            "transforms": [_settings(transform) for transform in self.transforms],
            "augment": list(self.augment),
            "copies": self.copies,
            "originals": self.originals,
            "seed": self.seed,
            **splits,
        }

    def _rows(self, name: str) -> Rows:
        if name in self._done:
            return self._done[name]
        if name == "train":
            self._done[name] = self._fitted[1]
        else:
            rows = self._opened(name)
            for number, transform in enumerate(self._fitted[0]):
                rows = self._applied(rows, name, number, transform)
            self._done[name] = rows
        found = self._done[name]
        if not found.examples:
            raise DataError(f"transformed: nothing is left of the split '{name}'; dropped: {dict(found.dropped)}.")
        return found

    @functools.cached_property
    def _done(self) -> dict[str, Rows]:
        return {}

    @functools.cached_property
    def _fitted(self) -> tuple[tuple[Any, ...], Rows]:
        """The transforms, fitted one after the other, and the training rows."""
        rows, fitted = self._opened("train"), []
        for number, transform in enumerate(self.transforms):
            fit = getattr(transform, "fit", None)
            fitted.append(transform if fit is None else fit(rows.examples))
            rows = self._applied(rows, "train", number, fitted[-1])
        return tuple(fitted), rows

    def _opened(self, name: str) -> Rows:
        examples = tuple(self.dataset.split(name))
        return Rows(examples, tuple((number, 0) for number in range(len(examples))))

    def _applied(self, rows: Rows, name: str, number: int, transform: Any) -> Rows:
        """The rows after the transform with this number."""
        draws = _draws(transform)
        if draws and name not in self.augment:
            return rows
        if draws and not any(map(_draws, self.transforms[:number])):
            rows = self._copied(rows)
        before = len(rows.examples)
        if hasattr(transform, "keep"):
            rows = rows.of(transform.keep(rows.examples))
        changed = tuple(
            example if draws and copy == 0 else transform(example, self._generator(name, number, origin, copy))
            for example, (origin, copy) in zip(rows.examples, rows.origins, strict=True)
        )
        left = dataclasses.replace(rows, examples=changed).of([i for i, e in enumerate(changed) if e is not None])
        label = f"{number}.{type(transform).__name__}"
        return dataclasses.replace(left, dropped={**rows.dropped, label: before - len(left.examples)})

    def _generator(self, split: str, transform: int, origin: int, copy: int) -> np.random.Generator:
        """What draws for one copy of one example."""
        return np.random.Generator(np.random.PCG64([self.seed, SPLITS.index(split), transform, origin, copy]))

    def _copied(self, rows: Rows) -> Rows:
        """Every example as its copies; copy 0 is the example itself."""
        copies = range(0 if self.originals else 1, self.copies + 1)
        places = [place for place in range(len(rows.examples)) for _ in copies]
        found = rows.of(places)
        origins = tuple((origin, copy) for origin, _ in rows.origins for copy in copies)
        return dataclasses.replace(found, origins=origins)


def _draws(transform: Any) -> bool:
    return bool(getattr(transform, "random", False))


def _has(dataset: Dataset | Transformed, split: str) -> bool:
    try:
        return len(dataset.split(split)) > 0
    except DataError:
        return False


def _settings(transform: Any) -> dict[str, Any]:
    """A transform's name and numbers."""
    fields = dataclasses.fields(transform) if dataclasses.is_dataclass(transform) else ()
    values = {found.name: getattr(transform, found.name) for found in fields if found.init}
    return {"transform": type(transform).__name__, **values}


def _facts(rows: Rows) -> dict[str, Any]:
    names = [found.name for found in dataclasses.fields(rows.examples[0]) if found.name != "source"]
    values = ([getattr(example, name) for name in names] for example in rows.examples)
    contents = (json.dumps(value, ensure_ascii=False).encode() for value in values)
    return {"examples": len(rows.examples), "dropped": dict(rows.dropped), "sha256": digest(contents)}
