from __future__ import annotations

import pytest

from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.prefixes.examples import Demonstration, Example, demonstrate
from prefixmux_server.service.text.template import MAX_CHARACTERS
from prefixmux_store.errors import InvalidPrefix

PAIRS = [Example("one", "1"), Example("{output} two", "{input} 2")]


def test_examples_stand_one_after_another_as_they_are() -> None:
    assert demonstrate(PAIRS, None) == Demonstration(
        "one\n1\n\n{output} two\n{input} 2\n\n", "{input}\n", "\n\n"
    )


@pytest.mark.parametrize(
    ("template", "stored", "stop"),
    [
        ("Q: {input}\nA: {output}\n", "Q: {input}\nA:", "\n"),
        ("{input} =  {output}", "{input} =", ""),
        ("{input}{output}.", "{input}", "."),
        ("{input} or {input}\t{output}", "{input} or {input}\t", ""),
        ("{x}{{input}}{output}{", "{x}{{input}}", "{"),
    ],
)
def test_what_requests_continue_with(template: str, stored: str, stop: str) -> None:
    found = demonstrate(PAIRS[:1], template)
    assert (found.template, found.stop) == (stored, stop)
    assert found.text == template.replace("{input}", "one").replace("{output}", "1")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{input}",
        "{output}",
        "{output} {input}",
        "{input} {output} {output}",
        "{input} {output} {input}",
        "{input}{output}" + "é" * 129,
    ],
)
def test_templates_that_no_answer_can_follow(template: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        demonstrate(PAIRS, template)
    assert caught.value.param == "template"


def test_examples_grow_no_text_that_could_never_be_stored() -> None:
    template = "{input}" * 1000 + "{output}"
    with pytest.raises(InvalidPrefix) as caught:
        demonstrate([Example("x" * (MAX_CHARACTERS // 1000), "")], template)
    assert (caught.value.reason, caught.value.param) == ("too_long", "examples")
    many = [Example("x", "y")] * MAX_CHARACTERS
    with pytest.raises(InvalidPrefix):
        demonstrate(many, None)
