"""What an instruction model learns of a conversation: against Transformers' own masks, and by hand."""

import json

import numpy as np
import pytest

from lmlab.contracts import Conversation
from lmlab.data.answers import written
from lmlab.data.chat_template import ChatTemplate, write_chat_template
from lmlab.data.datasets.conversations_jsonl import ConversationsJsonl
from lmlab.data.features import Setting
from lmlab.data.features.conversations import conversations_to_tokens
from lmlab.data.tokenizers.byte_level import BytePairs
from lmlab.data.tokenizers.hf import TokenizerFile
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import DataError

pytest.importorskip("jinja2")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
SPOKEN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}"
TURNS = Conversation(
    ("system", "user", "assistant", "user", "assistant"),
    ("Be brief.", "the cat?", "the mat, größer ", "assistant\nno", "<|im_start|>user sat"),
)
MESSAGES = [{"role": role, "content": said} for role, said in zip(TURNS.roles, TURNS.contents, strict=True)]


def said(template, messages=MESSAGES):
    text, spans = written(ChatTemplate(template), messages)
    return [text[start:stop] for start, stop in spans]


def tokenizer_with(folder, template):
    tokens = BytePairs(size=300, specials=("im_start", "im_end")).fit(["the cat sat on the mat"])
    (folder / "tokenizer.json").write_bytes(tokens.export())
    if template:
        write_chat_template(folder, ChatTemplate(template))
    return TokenizerFile(str(folder / "tokenizer.json")).fit(())


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_chatml_is_answered_by_the_contents_and_the_ends_of_turns(template):
    assert said(template) == ["the mat, größer <|im_end|>", "<|im_start|>user sat<|im_end|>"]
    text, _ = written(ChatTemplate(template), MESSAGES)
    assert (
        text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe cat?") and "\ufdd0" not in text
    )


def test_a_template_that_opens_no_answer_is_read_by_its_contents_and_white_space_may_end_a_turn():
    assert said(SPOKEN) == ["the mat, größer \n\n", "<|im_start|>user sat\n\n"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}", "once the conversation goes on"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "does not open answers .* writes them changed"),
    ],
)
def test_a_template_of_which_nobody_can_tell_is_refused(template, says):
    with pytest.raises(DataError, match=says):
        said(template)


def test_ids_and_weights_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_with(tmp_path, MARKED)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    theirs.chat_template = MARKED
    wanted = theirs.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    rows = conversations_to_tokens([TURNS], Setting(200, tokenizer), True)
    batch = {name: values[0] for name, values in rows.gather(np.arange(1)).items()}
    size = len(wanted["input_ids"]) - 1
    assert batch["tokens"][:size].tolist() == wanted["input_ids"][:-1]
    assert batch["targets"][:size].tolist() == wanted["input_ids"][1:]
    assert batch["weights"][:size].tolist() == wanted["assistant_masks"][1:] and 0 < sum(batch["weights"]) < size
    assert not batch["weights"][size:].any() and not batch["segment_ids"][size:].any()


def test_packed_conversations_are_segments_that_learn_what_they_do_alone(tmp_path):
    tokenizer = tokenizer_with(tmp_path, CHATML)
    short = Conversation(("user", "assistant"), ("on?", "the mat"))
    alone = conversations_to_tokens([TURNS, short], Setting(200, tokenizer), True).gather(np.arange(2))
    rows = conversations_to_tokens([TURNS, short], Setting(200, tokenizer, packing="first_fit"), True)
    assert len(rows) == 1
    packed = {name: values[0] for name, values in rows.gather(np.arange(1)).items()}
    for number in range(2):
        there, own = packed["segment_ids"] == number + 1, alone["segment_ids"][number] > 0
        for name in ("tokens", "targets", "weights", "positions"):
            np.testing.assert_array_equal(packed[name][there], alone[name][number][own], err_msg=name)
    answers = packed["targets"][(packed["weights"] > 0) & (packed["segment_ids"] == 2)]
    end = tokenizer.special_ids["im_end"]
    assert tokenizer.decode(answers[:-1]) == "the mat" and answers[-1] == end


def test_an_overlong_one_is_cut_at_its_end_or_refused(tmp_path):
    tokenizer = tokenizer_with(tmp_path, CHATML)
    whole = conversations_to_tokens([TURNS], Setting(200, tokenizer), True).gather(np.arange(1))
    cut = conversations_to_tokens([TURNS], Setting(31, tokenizer, overlong="cut"), True)
    assert len(cut) == 1 and cut.notes["overlong cut"] == 1
    np.testing.assert_array_equal(cut.gather(np.arange(1))["targets"], whole["targets"][:, :31])
    with pytest.raises(DataError, match="conversation"):
        conversations_to_tokens([TURNS], Setting(31, tokenizer), True)


def test_a_tokenizer_json_without_a_template_is_refused_and_other_tokenizers_need_none(tmp_path):
    with pytest.raises(DataError, match=r"no chat template.*Put chat_template\.jinja"):
        conversations_to_tokens([TURNS], Setting(200, tokenizer_with(tmp_path, None)), True)
    plain = conversations_to_tokens([TURNS], Setting(200, Bytes()), True).gather(np.arange(1))
    learned = plain["targets"][plain["weights"] > 0]
    assert bytes(learned.astype(np.uint8)) == "the mat, größer \0<|im_start|>user sat\0".encode()


def test_lines_are_conversations_or_questions_with_their_answers(tmp_path):
    lines = [{"messages": MESSAGES, "id": 5}, {"prompt": "on?", "completion": "the mat"}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = ConversationsJsonl(str(file), valid_share=0.0, test_share=0.0).split("train")
    assert [(one.roles, one.contents) for one in found] == [
        (TURNS.roles, TURNS.contents), (("user", "assistant"), ("on?", "the mat"))
    ]  # fmt: skip
    assert found[1].source.endswith("a.jsonl:2")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"text": "a"}, "neither 'messages' nor 'prompt'"),
        ({"prompt": "a", "completion": ""}, "no completion"),
        ({"messages": [{"role": "user", "content": "a"}]}, "the assistant says nothing"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "speaks first"),
        (
            {"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]},
            "content is no text",
        ),
        ({"messages": ["a"]}, "no list of objects"),
        ([1], "no object"),
    ],
)
def test_a_malformed_line_is_refused_by_its_place(tmp_path, line, says):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{says}"):
        ConversationsJsonl(str(file)).split("train")
