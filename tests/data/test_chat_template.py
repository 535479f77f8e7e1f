"""Chat templates against Transformers' own rendering, and how a tokenizer carries them."""

import json
import sys

import pytest

from lmlab.data.chat_template import ChatTemplate, read_chat_template, render, write_chat_template
from lmlab.data.tokenizers.byte_level import BytePairs
from lmlab.data.tokenizers.hf import TokenizerFile
from lmlab.errors import ConfigError, DataError

pytest.importorskip("jinja2")

CHATML = """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
<|im_start|>system
Be brief.<|im_end|>
    {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TURNS = """{{ bos_token }}{%- for message in messages -%}
{%- if message.role == 'system' %}{% continue %}{% endif -%}
{%- if message.role == 'user' -%} [INST] {{ message.content | trim }} [/INST]
{%- elif message.role == 'assistant' -%}
{% generation %} {{ message.content | tojson }}{{ eos_token }}{% endgeneration %}
{%- else -%}{{ raise_exception('only user and assistant, not ' + message.role) }}{%- endif -%}
{%- endfor -%}
{% if tools is not none or documents is not none or undefined_thing is defined %}never{% endif %}
{%- set ns = namespace(found=false) %}
{% for message in messages %}{% set ns.found = true %}{% endfor %}{{ ns.found }}"""
CONVERSATION = [
    {"role": "user", "content": " Größe? <b>'x' & y</b>\n"},
    {"role": "assistant", "content": 'Zwei "Meter" <|im_end|> é'},
    {"role": "user", "content": "{{ 7 * 7 }}"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "<|im_end|>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer.json with ChatML's tokens and a template beside it."""
    found = tmp_path_factory.mktemp("instruct")
    specials = ("im_start", "im_end")
    (found / "tokenizer.json").write_bytes(
        BytePairs(size=300, specials=specials).fit(["the cat sat on the mat"]).export()
    )
    write_chat_template(found, ChatTemplate(CHATML, TOKENS | {"eos_token": "<|im_end|>"}))
    return found


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("template", [CHATML, TURNS])
def test_conversations_are_written_as_transformers_writes_them(template, opens):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    (wanted,), _ = utils.render_jinja_template(
        conversations=[CONVERSATION], chat_template=template, add_generation_prompt=opens, **TOKENS
    )
    assert render(template, CONVERSATION, add_generation_prompt=opens, tokens=TOKENS) == wanted


def test_ids_are_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    ours = TokenizerFile(str(folder / "tokenizer.json")).fit([])
    text = ours.chat_template.render(CONVERSATION, add_generation_prompt=True)
    wanted = theirs.apply_chat_template(CONVERSATION, add_generation_prompt=True, return_dict=False)
    assert ours.encode_marked(text).tolist() == wanted
    assert ours.special_ids["im_start"] in wanted and ours.special_ids["im_start"] not in ours.encode(text)


def test_a_run_keeps_the_template_of_its_tokenizer(folder):
    path = str(folder / "tokenizer.json")
    saved = json.loads(json.dumps(TokenizerFile(path).fit([]).to_json()))
    assert TokenizerFile(path).from_json(saved).chat_template == ChatTemplate(CHATML, TOKENS)


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": TURNS, **TOKENS},
        {"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TURNS}], **TOKENS},
        {"chat_template": TURNS, "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "<|im_end|>",
         "pad_token": None, "add_bos_token": True},
    ],
)  # fmt: skip
def test_what_older_files_have_is_read(tmp_path, config):
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_chat_template(tmp_path) == ChatTemplate(TURNS, TOKENS)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert read_chat_template(tmp_path).source == CHATML


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(DataError, match=r"tokenizer_config\.json holds no object"):
        read_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json cannot be read"):
        read_chat_template(tmp_path)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for x in %}", "no Jinja template: line 1"),
        (TURNS, "refuses this conversation: only user and assistant, not tool"),
        ("{{ messages.append(1) }}", "refuses this conversation: .*unsafe"),
        ("{{ messages.__class__.__mro__ }}", "refuses this conversation: .*unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "refuses this conversation: .*unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "cannot write this conversation: Range too big"),
        ("{{ messages[0].content + 1 }}", "cannot write this conversation: can only concatenate str"),
    ],
)
def test_what_a_template_may_not_do_is_one_line(template, message):
    with pytest.raises(DataError, match=message) as raised:
        render(template, [{"role": "tool", "content": "x"}])
    assert "\n" not in str(raised.value)


def test_a_missing_jinja2_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"a chat template needs jinja2: pip install 'lmlab\[chat\]'"):
        render("x", [])
