"""Requests that come and go beside each other get what the decoder writes for each of them alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.generation.continuous import Busy, Closed, Engine, Request
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Sample
from lmlab.generation.slots import Sampling, Slots
from lmlab.models.gpt import GPT
from lmlab.models.lstm import LSTM
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, T = 23, 41
ENDS = {"gpt": 7, "lstm": 2}  # ids that the two models do write
MODELS = {
    "gpt": ModelDef.of(lambda rngs: GPT(V, T, jnp.float32, rngs, width=12, heads=3, layers=2)),
    "lstm": ModelDef.of(lambda rngs: LSTM(V, jnp.float32, rngs, width=7, layers=2)),
}
PARAMS = {name: drawn(model, 5, 0.6) for name, model in MODELS.items()}
DRAW = np.random.default_rng(3)


def prompt(length: int) -> np.ndarray:
    return DRAW.integers(3, V, length).astype(np.int32)


GREEDY = Sampling(0.0)


class Asked(Request):
    """A request that keeps what it is told."""

    def __init__(
        self, end: int, prompt: np.ndarray, length: int, sampling: Sampling = GREEDY, stop_after: int = -1
    ) -> None:
        self.tokens: list[int] = []
        self.ending: queue.Queue[Any] = queue.Queue()

        def receive(token: int) -> bool:
            self.tokens.append(token)
            return len(self.tokens) != stop_after

        super().__init__(prompt, length, sampling, receive, self.ending.put, frozenset([end]))


def alone(name: str, asked: Sequence[Asked]) -> list[list[int]]:
    """What a decoder writes for each of them: for its row of a batch, which is independent of the others."""
    found = {}
    for sampling in {one.sampling._replace(choice=0) for one in asked}:
        sampler = Sample(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        decoder = Decoder(MODELS[name], sampler, end_of_text=ENDS[name])
        mine = [one for one in asked if one.sampling._replace(choice=0) == sampling]
        rows: list[Any] = [np.array([3])] * (1 + max(one.sampling.choice for one in mine))
        for one in mine:
            rows[one.sampling.choice] = one.prompt
        length = max(one.length for one in mine)
        written = decoder.complete(PARAMS[name], rows, length=length, seed=sampling.seed)
        found.update({id(one): written[one.sampling.choice][: one.length].tolist() for one in mine})
    return [found[id(one)] for one in asked]


@pytest.fixture(scope="module", params=MODELS)
def slots(request: pytest.FixtureRequest) -> tuple[str, Slots]:
    name = request.param
    made = Slots(MODELS[name], PARAMS[name], slots=4, length=T, pieces=(2, 7), shortest=11)
    made.compile()
    return name, made


@pytest.fixture
def engine(slots: tuple[str, Slots]) -> Iterator[tuple[str, Engine]]:
    made = Engine(slots[1], waiting=40)
    yield slots[0], made
    made.close()
    assert slots[1].held == 0 or made.error is None


DRAWN = Sampling(30.0, top_k=21, top_p=0.98, min_p=0.01, seed=2**32 - 1)


def test_each_request_gets_what_it_would_get_alone(engine: tuple[str, Engine], slots: tuple[str, Slots]) -> None:
    name, writer = engine
    asked = [
        Asked(ENDS[name], prompt(1 + 3 * i % 17), 3 + 5 * i % 19, (GREEDY, DRAWN)[i % 2]._replace(choice=i))
        for i in range(17)
    ]
    programs = dict(slots[1]._programs)
    writer.submit(asked[:3])
    writer.start()
    for one in asked[3:]:  # they come while others are being written
        writer.submit([one])
        threading.Event().wait(0.005)
    endings = [one.ending.get(timeout=60) for one in asked]
    wanted = alone(name, asked)
    assert [one.tokens for one in asked] == wanted
    assert endings == ["length" if len(w) == one.length else "stop" for w, one in zip(wanted, asked, strict=True)]
    assert "stop" in endings and "length" in endings, "the test needs both"
    assert slots[1]._programs == programs, "nothing is compiled for a request"
    assert all(one.ending.empty() for one in asked)


def test_whoever_receives_a_text_may_end_it(engine: tuple[str, Engine]) -> None:
    name, writer = engine
    writer.start()
    asked = [Asked(ENDS[name], prompt(5), 20, DRAWN._replace(choice=i), stop_after=1 + i) for i in range(3)]
    writer.submit(asked)
    for i, one in enumerate(asked):
        one_ending = one.ending.get(timeout=60)
        assert one_ending == "stop" and len(one.tokens) == i + 1


def test_a_request_that_nobody_waits_for_gives_its_place_to_another(engine: tuple[str, Engine]) -> None:
    name, writer = engine
    begun, go_on = threading.Event(), threading.Event()
    gone = [Asked(ENDS[name], prompt(3), 30, Sampling(3.0, seed=i)) for i in range(4)]
    for one in gone:
        one.ends = frozenset()
    told = gone[0].receive
    gone[0].receive = lambda token: bool(begun.set() or (go_on.wait(60) and told(token)))
    writer.submit(gone)
    writer.start()
    begun.wait(60)
    late = Asked(ENDS[name], prompt(4), 6)
    writer.submit([late])
    for one in gone:
        one.cancelled = True
    go_on.set()
    assert late.ending.get(timeout=60) in ("stop", "length") and [late.tokens] == alone(name, [late])
    for one in gone:
        assert isinstance(one.ending.get(timeout=60), Closed) and len(one.tokens) < 30
    assert writer.load == (0, 0)


def test_places_are_limited_and_a_group_is_accepted_whole_or_not_at_all(engine: tuple[str, Engine]) -> None:
    name, writer = engine
    accepted = [Asked(ENDS[name], prompt(2), 2) for _ in range(42)]
    writer.submit(accepted)
    with pytest.raises(Busy, match="all 44 places are taken"):
        writer.submit([Asked(ENDS[name], prompt(2), 2) for _ in range(3)])
    accepted += (last := [Asked(ENDS[name], prompt(2), 2) for _ in range(2)])
    writer.submit(last)
    writer.start()
    assert all(one.ending.get(timeout=60) in ("stop", "length") for one in accepted)


def test_closing_tells_those_who_wait_and_takes_nobody_any_more(engine: tuple[str, Engine]) -> None:
    name, writer = engine
    asked = [Asked(ENDS[name], prompt(3), 30) for _ in range(9)]
    writer.submit(asked)
    writer.close()
    writer.start()
    assert all(isinstance(one.ending.get(timeout=60), Closed) for one in asked)
    with pytest.raises(Closed):
        writer.submit([Asked(ENDS[name], prompt(3), 3)])


def test_what_breaks_the_engine_is_told_to_everyone(engine: tuple[str, Engine]) -> None:
    name, writer = engine
    asked = [Asked(ENDS[name], prompt(3), 30) for _ in range(9)]

    def broken(token: int) -> bool:
        raise RuntimeError("out of memory")

    asked[4].receive = broken
    writer.submit(asked)
    writer.start()
    endings = [one.ending.get(timeout=60) for one in asked]
    assert sum(isinstance(ending, RuntimeError) for ending in endings) >= 5
    with pytest.raises(Closed):
        writer.submit([Asked(ENDS[name], prompt(3), 3)])
    assert isinstance(writer.error, RuntimeError)
