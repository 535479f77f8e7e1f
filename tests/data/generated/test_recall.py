"""Recall tasks: MQAR, induction heads and selective copying, by reading their rows as the definitions say."""

from collections import Counter

import numpy as np
import pytest

from lmlab.data.generated.induction_heads import InductionHeads
from lmlab.data.generated.mqar import MQAR
from lmlab.data.generated.selective_copy import SelectiveCopy
from lmlab.errors import ConfigError


@pytest.mark.parametrize(("length", "pairs"), [(64, 4), (128, 8), (256, 16), (512, 64), (34, 8)])
def test_every_key_comes_again_and_asks_for_its_value(length, pairs):
    for example in MQAR(length=length, pairs=pairs).split("train")[:20]:
        ids, targets, weights = example.ids, example.targets, example.weights
        assert len(ids) == len(targets) == len(weights) == length
        value_of = dict(zip(ids[: 2 * pairs : 2].tolist(), ids[1 : 2 * pairs : 2].tolist(), strict=True))
        assert len(value_of) == pairs == len(set(value_of.values()))
        assert all(1 <= key < 4096 for key in value_of) and all(4096 <= v < 8192 for v in value_of.values())
        asked = np.flatnonzero(weights)
        assert sorted(ids[asked].tolist()) == sorted(value_of)
        assert [value_of[key] for key in ids[asked].tolist()] == targets[asked].tolist()
        assert (asked >= 2 * pairs).all() and (asked % 2 == 0).all() and set(weights.tolist()) == {0.0, 1.0}
        rest = np.setdiff1d(np.arange(2 * pairs, length), asked)
        assert not ids[rest].any() and not targets[weights == 0].any()


def test_gaps_of_mqar_follow_the_power_law():
    """How often each slot is used, against numpy's older generator on the same weights."""
    dataset, count = MQAR(length=32, pairs=3), 4000
    law = 0.01 * np.arange(1, 14, dtype=float) ** (0.01 - 1)
    random = np.random.RandomState(0)
    expected = Counter(
        slot for _ in range(count) for slot in random.choice(13, 3, replace=False, p=law / law.sum()).tolist()
    )
    found = Counter((t - 6) // 2 for e in dataset.split("train")[:count] for t in np.flatnonzero(e.weights).tolist())
    for slot in range(13):
        spread = np.sqrt(expected[slot] + found[slot])
        assert found[slot] == pytest.approx(expected[slot], abs=4 * spread)
    assert found[0] > 2 * found[12]


def test_fillers_may_be_random():
    plain, noisy = MQAR(), MQAR(random_fillers=True)
    for one, other in zip(plain.split("train")[:9], noisy.split("train")[:9], strict=True):
        kept = one.ids != 0
        np.testing.assert_array_equal(other.ids[kept], one.ids[kept])
        np.testing.assert_array_equal(other.targets, one.targets)
        assert np.count_nonzero(other.ids[~kept]) > 40


@pytest.mark.parametrize(
    "settings", [{"length": 63}, {"vocab": 8191}, {"pairs": 17}, {"vocab": 64}], ids=lambda s: next(iter(s))
)
def test_mqar_without_room_is_refused(settings):
    with pytest.raises(ConfigError, match="length at least 4 times pairs, and vocab above length"):
        MQAR(**settings)


def test_the_induction_head_finds_what_followed_the_special_token():
    firsts = Counter()
    for example in InductionHeads(length=9).split("train")[:3000]:
        ids = example.ids.tolist()
        first = ids.index(16)
        assert ids.count(16) == 2 and ids[-1] == 16 and first <= 6
        assert example.targets[-1] == ids[first + 1] < 16
        assert example.weights.tolist() == [0] * 8 + [1]
        firsts[first] += 1
    assert set(firsts) == set(range(7))
    assert all(n == pytest.approx(3000 / 7, abs=5 * np.sqrt(3000 / 7)) for n in firsts.values())
    assert len(InductionHeads().split("test")[0].ids) == 256 and InductionHeads().vocab == 17


def test_selective_copying_asks_for_the_data_in_their_order():
    dataset = SelectiveCopy(length=29, data=5)
    places = Counter()
    for example in dataset.split("train")[:2000]:
        context, answers = example.ids[:29], example.ids[29:]
        data = context[context != 0]
        assert len(data) == 5 and data.max() <= 14 and (answers == 15).all() and len(answers) == 5
        assert example.targets[29:].tolist() == data.tolist()
        assert not example.weights[:29].any() and example.weights[29:].all()
        places.update(np.flatnonzero(context).tolist())
    assert all(places[t] == pytest.approx(2000 * 5 / 29, abs=5 * np.sqrt(2000 * 5 / 29)) for t in range(29))
    published = SelectiveCopy()
    assert published.vocab == 16 and len(published.split("train")[2**39].ids) == 4112
    with pytest.raises(ConfigError, match="data = 16 do not find room in length = 15"):
        SelectiveCopy(length=15)


@pytest.mark.parametrize(
    ("dataset", "chance"), [(MQAR(), 1 / 4), (InductionHeads(), 1 / 16), (SelectiveCopy(), 1 / 14)]
)
def test_chance_is_that_of_the_answers(dataset, chance):
    known = dataset.known()
    assert known["chance/accuracy"] == pytest.approx(chance)
    assert known["chance/nats_per_token"] == pytest.approx(-np.log(chance))
