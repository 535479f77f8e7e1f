"""Turns, answers and what is left out, against the template and the decoder."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.data.chat_template import ChatTemplate
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import DataError
from lmlab.generation.conversation import Conversation
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.slots import Sampling, Slots
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

LENGTH, TOKENS = 48, 7
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
                        "{% if add_generation_prompt %}a:{% endif %}")  # fmt: skip
MODEL = ModelDef.of(lambda rngs: GPT(128, LENGTH, jnp.float32, rngs, width=12, heads=3, layers=2))
PARAMS = drawn(MODEL, 5, 0.6)


@pytest.fixture(scope="module")
def slots() -> Slots:
    pytest.importorskip("jinja2")
    return Slots(MODEL, PARAMS, slots=1, length=LENGTH, pieces=(16,))


def talk(slots: Slots, system: str | None = None, ends: frozenset[int] = frozenset()) -> Conversation:
    tokenizer = Bytes()
    return Conversation(
        slots, TEMPLATE, tokenizer.encode, tokenizer.token_bytes(), ends, tokens=TOKENS,
        sampling=Sampling(temperature=0.0), system=system,
    )  # fmt: skip


def answer_of(text: str) -> str:
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    (written,) = Decoder(MODEL, Greedy(), end_of_text=None).complete(PARAMS, [ids], length=TOKENS)
    return bytes(written.tolist()).decode(errors="replace")


def test_answers_continue_the_whole_conversation(slots: Slots) -> None:
    one = talk(slots, system="s")
    assert one.say("hi") == 0
    first = "".join(one.answer())
    assert first == answer_of("s:s;u:hi;a:")
    one.say("ho")
    assert "".join(one.answer()) == answer_of(f"s:s;u:hi;a:{first};u:ho;a:")
    one.reset()
    one.say("hi")
    assert "".join(one.answer()) == first


def test_an_answer_ends_with_its_turn_or_where_it_is_stopped(slots: Slots) -> None:
    one = talk(slots)
    one.say("hi")
    whole = "".join(one.answer())
    second = talk(slots, ends=frozenset([whole.encode()[-1]]))
    second.say("hi")
    assert "".join(second.answer()) == whole[: whole.index(whole[-1])]
    third, shown = talk(slots), ""
    third.say("hi")
    for piece in third.answer():
        shown += piece
        third.stop()
    assert whole.startswith(shown) and len(shown) < len(whole)
    assert third.messages[-1] == {"role": "assistant", "content": shown} and slots.held == 0


def test_the_oldest_turns_are_left_out_and_the_system_prompt_never(slots: Slots) -> None:
    one, kept = talk(slots, system="s"), []
    for turn in range(4):
        dropped = one.say(f"turn {turn}")
        answer = "".join(one.answer())
        kept = [*kept[dropped:], ("user", f"turn {turn}"), ("assistant", answer)]
        assert [(message["role"], message["content"]) for message in one.messages] == kept
        assert kept[0][0] == "user" and dropped % 2 == 0
    assert dropped > 0 and len(one._prompt) + TOKENS <= LENGTH
    before = list(one.messages)
    with pytest.raises(DataError, match="too long: with an answer of 7 tokens there is room for 41, and it has"):
        one.say("x" * 60)
    assert one.messages == before
