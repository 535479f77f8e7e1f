"""A dataset with transforms: what reaches which split, what is drawn, and what is counted."""

from dataclasses import dataclass

import pytest

from lmlab.config import resolve
from lmlab.data import open_data
from lmlab.data.datasets.transformed import Transformed
from lmlab.data.tokenizers.plain import Bytes
from lmlab.data.transforms.augmentation import RandomDeletion, RandomSwap
from lmlab.data.transforms.backoff_noise import BackoffNoise
from lmlab.data.transforms.duplicates import DropDuplicates
from lmlab.data.transforms.preprocessing import Lowercase, StopWords
from lmlab.errors import ConfigError, DataError
from lmlab.examples import LabelledText, Text

TRAIN = ("One two three four five", "of the", "six seven eight nine", "One two three four five")


@dataclass(frozen=True)
class Labelled:
    example: type = LabelledText
    labels: tuple = ("x",)
    valid: tuple = ("Ten eleven", "twelve")

    def split(self, name):
        texts = {"train": TRAIN, "valid": self.valid}.get(name)
        if not texts:
            raise DataError(f"no split '{name}'")
        return tuple(LabelledText(text, "x", source=str(i)) for i, text in enumerate(texts))

    def fingerprint(self):
        return {"texts": 4}


def texts(dataset, split="train"):
    return [example.text for example in dataset.split(split)]


def test_transforms_are_applied_in_their_order_and_drops_are_counted():
    found = Transformed(Labelled(), (Lowercase(), DropDuplicates(), StopWords()))
    assert texts(found) == ["one two three four five", "six seven eight nine"]
    assert [example.source for example in found.split("train")] == ["0", "2"]
    dropped = {"0.Lowercase": 0, "1.DropDuplicates": 1, "2.StopWords": 1}
    assert found.fingerprint()["train"]["dropped"] == dropped
    assert {f"dropped/train/{by}": n for by, n in dropped.items()}.items() <= found.notes.items()
    assert found.notes["dropped/valid/1.DropDuplicates"] == 0 and "test" not in "".join(found.notes)
    assert found.example is LabelledText and found.labels == ("x",) and found.tags == ()


def test_only_training_examples_are_augmented_unless_told_so():
    assert texts(Transformed(Labelled(), (RandomDeletion(0.9),)), "valid") == ["Ten eleven", "twelve"]
    found = Transformed(Labelled(), (RandomDeletion(0.9),), augment=("train", "valid"))
    assert all(len(text.split()) == 1 for text in texts(found, "valid"))


def test_every_example_becomes_its_copies():
    found = texts(Transformed(Labelled(), (Lowercase(), RandomSwap(0.5)), copies=3, originals=True))
    assert len(found) == 4 * 4
    assert found[0::4] == [text.lower() for text in TRAIN]
    assert all(sorted(found[i].split()) == sorted(found[i - i % 4].split()) for i in range(16))
    assert len(set(found[:4])) > 1 and len(texts(Transformed(Labelled(), (RandomSwap(),), copies=3))) == 12


def test_what_is_drawn_depends_on_seed_and_place_only():
    one, again, other = (texts(Transformed(Labelled(), (RandomSwap(0.5),), copies=5, seed=s)) for s in (1, 1, 2))
    assert one == again != other
    more = texts(Transformed(Labelled(), (RandomSwap(0.5),), copies=7, seed=1))
    assert more[:5] == one[:5] and more[7:12] == one[5:10]
    assert one[:5] != one[15:], "the same text in another place is drawn anew"


def test_counts_are_those_of_the_training_examples_before_it():
    noise = Transformed(Labelled(), (Lowercase(), BackoffNoise("unigram", rate=1.0)))
    assert set(" ".join(texts(noise)).split()) <= set(" ".join(TRAIN).lower().split())
    assert texts(noise, "valid") == ["ten eleven", "twelve"]


def test_settings_and_data_are_in_the_fingerprint():
    changes = [
        Transformed(Labelled(), (RandomSwap(0.5),)),
        Transformed(Labelled(), (RandomSwap(0.5),), seed=1),
        Transformed(Labelled(), (RandomSwap(0.4),)),
        Transformed(Labelled(), (RandomSwap(0.5),), copies=2),
        Transformed(Labelled(), ()),
        Transformed(Labelled(valid=("Ten",)), (RandomSwap(0.5),)),
    ]
    prints = [str(changed.fingerprint()) for changed in changes]
    assert len(set(prints)) == len(prints)


def test_a_split_of_which_nothing_is_left_is_named():
    empty = Transformed(Labelled(valid=("the", "of")), (StopWords(),))
    with pytest.raises(DataError, match=r"nothing is left of the split 'valid'.*'0.StopWords': 2"):
        empty.split("valid")
    with pytest.raises(DataError, match="no split 'test'"):
        empty.split("test")


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="all copies are the same"):
        Transformed(Labelled(), (Lowercase(),), copies=2)
    with pytest.raises(ValueError, match="'dev', which is no split"):
        Transformed(Labelled(), (RandomSwap(),), augment=("dev",))


def test_it_is_configured_and_opened_like_any_dataset(tmp_path):
    (tmp_path / "text.txt").write_text("Of THE Cat\n" * 50)
    bindings = f"""
    transformed.dataset = @text_files
    transformed.transforms = [@lowercase, @stop_words]
    text_files.train = '{tmp_path}/text.txt'
    text_files.split_by = 'position'
    """
    found = resolve([], [bindings], root="transformed").build()
    assert found.example is Text
    data = open_data(found, Bytes(), seq_len=8, global_batch_size=2)
    assert data.tokenizer.decode(data.train.batch(0)["targets"][0][:4]) in ("cat ", "at c", "t ca", " cat")


def test_a_dataset_of_ids_is_refused_in_one_line():
    found = resolve(
        [], ["transformed.dataset = @random_tokens; transformed.transforms = [@lowercase]"], root="transformed"
    )
    with pytest.raises(ConfigError, match="Tokens holds none"):
        found.build().split("train")
