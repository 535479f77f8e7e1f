"""What all generated datasets share: any example at any time, endless splits, fingerprints."""

import dataclasses

import numpy as np
import pytest

from lmlab.data.generated.drawing import ENDLESS, SPLITS, Generated, random_at
from lmlab.data.generated.dyck import Dyck
from lmlab.data.generated.hmm_source import HMMSource
from lmlab.data.generated.induction_heads import InductionHeads
from lmlab.data.generated.mqar import MQAR
from lmlab.data.generated.selective_copy import SelectiveCopy
from lmlab.data.generated.seqgan_oracle import SeqGANOracle
from lmlab.data.generated.vae_synthetic import VAESynthetic
from lmlab.errors import DataError

SMALL = [
    Dyck(kinds=2, depth=3, length=11),
    HMMSource(states=3, symbols=5, length=7),
    InductionHeads(length=13),
    MQAR(vocab=38, length=34),
    SelectiveCopy(length=19, data=3),
    SeqGANOracle(vocab=11, length=7, embedding=3, width=5),
    VAESynthetic(words=11, length=5, embedding=3, width=7),
]


def content(example):
    return [None if part is None else part.tolist() for part in (example.ids, example.targets, example.weights)]


def test_items_and_slices_are_made_when_asked_for():
    made = []
    items = Generated(lambda i: made.append(i) or i * i, range(ENDLESS))
    part = items[10:1000:7]
    assert len(items) == 2**40 and len(part) == 142 and not made
    assert part[2] == 24**2 and part[-1] == 997**2 and items[-1] == (ENDLESS - 1) ** 2
    assert list(part[1:3]) == [17**2, 24**2] and isinstance(part[1:3], Generated)
    assert made == [24, 997, ENDLESS - 1, 17, 24]
    with pytest.raises(IndexError):
        part[142]


def test_no_two_examples_have_the_same_random_numbers():
    places = [(seed, split, i) for seed in (0, 1) for split in SPLITS for i in (0, 1, 2, 2**32, 2**39 + 1)]
    drawn = {random_at(*place).integers(2**62) for place in places}
    drawn |= {np.random.default_rng(seed).integers(2**62) for seed in (0, 1)}  # which give the parameters
    assert len(drawn) == len(places) + 2


@pytest.mark.parametrize("dataset", SMALL, ids=lambda dataset: type(dataset).__name__)
def test_an_example_depends_on_seed_split_and_place_only(dataset):
    again = type(dataset)(**{field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)})
    for split in SPLITS:
        in_order = [content(example) for example in dataset.split(split)[:9]]
        backwards = [content(again.split(split)[i]) for i in reversed(range(9))][::-1]
        assert in_order == backwards
    assert dataset.fingerprint() == again.fingerprint()
    other = dataclasses.replace(dataset, seed=dataset.seed + 1)
    assert content(other.split("train")[0]) != content(dataset.split("train")[0])
    assert other.fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize("dataset", SMALL, ids=lambda dataset: type(dataset).__name__)
def test_a_smaller_training_split_is_the_beginning_of_a_greater_one(dataset):
    few = dataclasses.replace(dataset, train_examples=5).split("train")
    many = dataclasses.replace(dataset, train_examples=ENDLESS).split("train")
    assert len(few) == 5 and len(many) == ENDLESS
    assert [content(example) for example in few] == [content(example) for example in many[:5]]
    assert content(many[ENDLESS - 1]) != content(many[0])


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"dyck: no split 'dev'; there are train, valid and test\."):
        Dyck().split("dev")
