"""What a request's texts and ids become, for each family and method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from service.fakes import EOS, INFO, MODEL, SEQ2SEQ, START, VOCABULARY, ids
from tokenizers import Tokenizer, processors

from prefixmux_server.engine.model_info import ModelInfo, TokenizerInfo
from prefixmux_server.errors import InvalidRequest, PromptTooLong, TokenizerUnavailable
from prefixmux_server.service.generation.prompt import Prompt, check_ids, prompt_of
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.target import Target
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.types import Defaults, Part

LEAD, TAIL = 1, 2


def framed() -> TextCodec:
    """`LEAD text TAIL`."""
    made = Tokenizer.from_str(INFO.json)
    lead, tail = made.id_to_token(LEAD), made.id_to_token(TAIL)
    made.post_processor = processors.TemplateProcessing(
        single=f"{lead} $A {tail}", pair=None, special_tokens=[(lead, LEAD), (tail, TAIL)]
    )
    return TextCodec(TokenizerInfo(made.to_str(), ()))


CODEC = framed()


def target(*methods: str, template: str | None = None) -> Target:
    parts = tuple(Part("e2e", 1, f"sha256:{at}", 3, method) for at, method in enumerate(methods))
    return Target("e2e", 1, parts, defaults=Defaults(template))


def made(model: ModelInfo, at: Target, **asked: Any) -> Prompt:
    return prompt_of(GenerationRequest(**asked), at, CODEC, model)


def test_text_stands_between_special_tokens() -> None:
    prompt = made(MODEL, target("PREFIX_TUNING"), input="ab")
    assert prompt == Prompt((LEAD, *ids("ab"), TAIL), (), 4)


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised() -> None:
    assert MODEL.context is not None
    long = "a" * (MODEL.context + 1) * 20
    codec = Mock(wraps=CODEC)
    for at, param in ((target(), "input"), (target("INFIX_TUNING"), "decoder_input")):
        asked: dict[str, Any] = {"input": (5,), param: long}
        request = GenerationRequest(**asked)
        with pytest.raises(PromptTooLong) as refused:
            prompt_of(request, at, codec, MODEL)
        assert refused.value.param == param
    codec.encode.assert_not_called()
    codec.plain.assert_not_called()


def test_ids_are_taken_as_they_are() -> None:
    for at in (target(), target("TEXT"), target("PREFIX_TUNING", template="Q: {input} A:")):
        assert made(MODEL, at, input=(5, 6)) == Prompt((5, 6), (), 2)


def test_text_behind_text_begins_no_second_time() -> None:
    for at in (target("TEXT"), target("PREFIX_TUNING", "TEXT")):
        assert made(MODEL, at, input="ab").input_ids == (*ids("ab"), TAIL)
    assert CODEC.opening("so ") == (LEAD, *ids("so "))


def test_text_that_has_no_tokens_of_its_own() -> None:
    assert CODEC.opening("") == CODEC.following("") == ()
    with pytest.raises(InvalidRequest) as caught:
        made(MODEL, target("TEXT"), input="")
    assert caught.value.param == "input"


def test_special_tokens_that_a_text_spells_out_are_its_own() -> None:
    text = "<|endoftext|>a<|endoftext|>"
    assert CODEC.opening(text) == (LEAD, EOS, *ids("a"), EOS)
    assert CODEC.following(text) == (EOS, *ids("a"), EOS, TAIL)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {input}\nA:", "Q: {x} {input}\nA:"),
        ("{input}{input}", "{x} {input}{x} {input}"),
        ("{0} %s {input} {output}", "{0} %s {x} {input} {output}"),
    ],
)
def test_a_template_is_replaced_and_nothing_else(template: str, text: str) -> None:
    prompt = made(MODEL, target("PREFIX_TUNING", template=template), input="{x} {input}")
    assert prompt.input_ids == CODEC.encode(text)


def test_a_template_grows_no_text_that_could_never_be_served() -> None:
    codec = Mock(TextCodec)
    for method in ("PREFIX_TUNING", "TEXT"):
        at = target(method, template="{input}" * 16)
        with pytest.raises(PromptTooLong) as caught:
            prompt_of(GenerationRequest(input="x" * (2**20 // 16)), at, codec, MODEL)
        assert caught.value.param == "input"
    assert codec.mock_calls == []


def test_a_decoder_begins_with_its_start_token() -> None:
    assert made(SEQ2SEQ, target(), input=(5,)) == Prompt((5,), (START,), 1)
    prompt = made(SEQ2SEQ, target(), input="a", decoder_input="ab")
    assert prompt == Prompt((LEAD, *ids("a"), TAIL), (START, *ids("ab")), 5)
    prompt = made(SEQ2SEQ, target(template="{input}!"), input="a", decoder_input=(8, 9))
    assert prompt.decoder_ids == (START, 8, 9)


def test_a_decoder_without_a_start_token_needs_input() -> None:
    model = replace(SEQ2SEQ, decoder_start_token_id=None)
    assert made(model, target(), input=(5,), decoder_input=(8,)).decoder_ids == (8,)
    with pytest.raises(InvalidRequest) as caught:
        made(model, target(), input=(5,))
    assert caught.value.param == "decoder_input"


@pytest.mark.parametrize("method", ["INFIX_TUNING", "INFIX_EMBEDDING"])
def test_behind_an_infix_comes_bos_or_what_is_given(method: str) -> None:
    at = target("PREFIX_TUNING", method)
    assert made(MODEL, at, input=(5,)) == Prompt((5,), (EOS,), 1)
    assert made(MODEL, at, input=(5,), decoder_input=(8, 9)) == Prompt((5,), (8, 9), 3)
    assert made(MODEL, at, input=(5,), decoder_input="ab").decoder_ids == tuple(ids("ab"))
    with pytest.raises(InvalidRequest, match="decoder_input") as caught:
        made(replace(MODEL, bos_token_id=None), at, input=(5,))
    assert caught.value.param == "decoder_input"


def test_a_prompt_of_one_sequence_has_no_decoder_input() -> None:
    for at in (target(), target("PREFIX_TUNING"), target("TEXT")):
        with pytest.raises(InvalidRequest) as caught:
            made(MODEL, at, input=(5,), decoder_input=(8,))
        assert caught.value.param == "decoder_input"


def test_without_a_tokenizer_the_field_with_text_is_named() -> None:
    for asked, param in (
        (GenerationRequest("a"), "input"),
        (GenerationRequest((5,), decoder_input="a"), "decoder_input"),
    ):
        with pytest.raises(TokenizerUnavailable) as caught:
            prompt_of(asked, target(), None, SEQ2SEQ)
        assert caught.value.param == param


@pytest.mark.parametrize("token_ids", [(), (-1,), (0, VOCABULARY), (2**70,)])
def test_ids_are_those_of_the_vocabulary(token_ids: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_ids(token_ids, MODEL, "decoder_input")
    assert caught.value.param == "decoder_input"


def test_every_id_of_the_vocabulary_may_be_sent() -> None:
    check_ids(tuple(range(VOCABULARY)), MODEL, "input")
