"""Laws of transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmlab.contracts import Document, LabelledText, TaggedText, Text, TextPair
from lmlab.testing.tiny import Tiny

WORDS = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "today"]
SENTENCE = " ".join(WORDS)
TAGS = ("O", "B-a", "I-a", "I-a", "O", "O", "O", "B-b", "I-b", "O")
EXAMPLES = (
    Text(f"{SENTENCE}.\nIt is  quick .", "a:1"),
    Document((SENTENCE, "A lazy dog"), "b:2"),
    TextPair(SENTENCE, "Le renard brun", "c:3"),
    LabelledText(SENTENCE, "Animals", "Second, quick text", "d:4"),
    TaggedText(tuple(WORDS), TAGS, "Intent", "e:5"),
)


def is_a_pure_function(tiny: Tiny) -> None:
    """The same example and the same generator give the same example, whatever came before; the given one stays."""
    transform, again = _fitted(tiny), _fitted(tiny)
    for example in EXAMPLES:
        for seed in range(5):
            one = transform(example, np.random.default_rng(seed))
            assert one == again(example, np.random.default_rng(seed)) == transform(example, np.random.default_rng(seed))


def keeps_the_kind_and_what_is_to_be_predicted(tiny: Tiny) -> None:
    """An example stays one of its kind, with its label and its source, and every word with a tag."""
    transform = _fitted(tiny)
    for example in EXAMPLES:
        for seed in range(5):
            found = transform(example, np.random.default_rng(seed))
            if found is None:
                continue
            assert type(found) is type(example) and found.source == example.source
            assert getattr(found, "label", None) == getattr(example, "label", None)
            if isinstance(found, TaggedText):
                assert len(found.words) == len(found.tags) and set(found.tags) <= set(TAGS)
            if isinstance(found, TextPair) and getattr(transform, "random", False):
                assert found.target == TextPair(SENTENCE, "Le renard brun").target


def draws_only_if_it_says_so(tiny: Tiny) -> None:
    """A transform that does not say `random` gives the same whatever the generator."""
    transform = _fitted(tiny)
    if not getattr(transform, "random", False):
        for example in EXAMPLES:
            assert transform(example, np.random.default_rng(1)) == transform(example, np.random.default_rng(2))


def _fitted(tiny: Tiny) -> Any:
    transform = tiny.alone().build()
    return transform.fit(EXAMPLES) if hasattr(transform, "fit") else transform


LAWS = (is_a_pure_function, keeps_the_kind_and_what_is_to_be_predicted, draws_only_if_it_says_so)
