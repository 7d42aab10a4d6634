"""Chat templates, against transformers' own rendering of the same ones."""

from __future__ import annotations

from datetime import datetime

import pytest
from service.fakes import EOS_TEXT, tokenizer
from transformers import PreTrainedTokenizerFast

from prefixmux_server.service.text.chat_template import (
    ChatTemplate,
    Message,
    TemplateRefused,
    TemplateUnusable,
)

SPECIAL = {"bos_token": EOS_TEXT, "eos_token": EOS_TEXT}
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {{- message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LLAMA = """\
{{ bos_token }}{% if tools %}tools{% endif %}{% for message in messages %}
    {% if loop.index0 is odd and message.role != 'assistant' %}
        {{ raise_exception('Conversation roles must alternate user/assistant/...') }}
    {% endif %}
  [INST] {{ message['content'] }} [/INST]{{ eos_token }}
    {% endfor %}"""
EVERYTHING = """\
{%- set ns = namespace(seen=0, self='x') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{%- continue -%}{%- endif -%}
  {%- set ns.seen = ns.seen + 1 -%}
  {%- if ns.seen > 2 -%}{%- break -%}{%- endif -%}
  {% generation %}{{ message | tojson }}{% endgeneration %}
{%- endfor -%}
{{ ns.seen }}{{ ns.self }}{{ dict(a=1, b='<é>') | tojson(indent=2) }}{{ dict.fromkeys(['k'], 0) }}
{{ strftime_now('%Y') }}{{ messages[-1].get('name', 'nobody') }}{{ pad_token is defined }}
{{ tools is none }}{{ documents is none }}"""
CHATS: list[list[Message]] = [
    [{"role": "user", "content": "hello"}],
    [
        {"role": "system", "content": " be <brief> & \u201ckind\u201d\n"},
        {"role": "assistant", "content": "été"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c", "name": "eve"},
    ],
]


def ours(source: str) -> ChatTemplate:
    return ChatTemplate(source, SPECIAL)


@pytest.mark.parametrize("source", [CHATML, LLAMA, EVERYTHING], ids=["chatml", "llama", "all"])
@pytest.mark.parametrize("chat", CHATS, ids=["one", "two", "three"])
@pytest.mark.parametrize("prompted", [True, False])
def test_renders_as_transformers(source: str, chat: list[Message], prompted: bool) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), **SPECIAL)
    expected = theirs.apply_chat_template(
        [dict(message) for message in chat],
        chat_template=source,
        tokenize=False,
        add_generation_prompt=prompted,
    )
    assert ours(source).render(chat, add_generation_prompt=prompted) == expected


def test_the_words_of_a_template_that_refuses() -> None:
    user: Message = {"role": "user", "content": "a"}
    with pytest.raises(TemplateRefused) as refused:
        ours(LLAMA).render([user, user])
    assert refused.value.said == "Conversation roles must alternate user/assistant/..."


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ messages.nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ namespace(_a=1) }}",
        "{% set ns = namespace() %}{% set ns._a = 1 %}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
    ],
)
def test_what_a_template_may_not_do(source: str) -> None:
    with pytest.raises(TemplateUnusable) as refused:
        ours(source).render([{"role": "user", "content": "a"}])
    assert not isinstance(refused.value, TemplateRefused)


def test_the_time_is_now() -> None:
    text = ours("{{ strftime_now('%Y-%m') }}").render([])
    assert datetime.strptime(text, "%Y-%m") <= datetime.now()
