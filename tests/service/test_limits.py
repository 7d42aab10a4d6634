from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from service.fakes import CONTEXT, EOS, MODEL, SEQ2SEQ, VOCABULARY

from prefixmux_server.engine.params import BeamParams, SamplingParams
from prefixmux_server.errors import InvalidParameter, PromptTooLong
from prefixmux_server.service.generation.limits import check_parameters, check_rows, sampling_params
from prefixmux_server.service.generation.parameters import Parameters, settle
from prefixmux_server.service.generation.prompt import Prompt
from prefixmux_server.service.generation.room import PrefixSize

SHIFTED = PrefixSize(decoder=10, offset=10)


def prompt(tokens: int, decoder_tokens: int = 0) -> Prompt:
    return Prompt((1,) * tokens, (1,) * decoder_tokens, tokens)


def asked(parameters: Parameters | None = None, tokens: int = 60) -> SamplingParams:
    return sampling_params(parameters or Parameters(), prompt(tokens), PrefixSize(), MODEL)


def test_max_new_tokens_defaults_to_what_fits_and_at_most_128() -> None:
    assert asked().max_new_tokens == 5
    roomy = replace(MODEL, context=None)
    assert sampling_params(Parameters(), prompt(60), PrefixSize(), roomy).max_new_tokens == 128


def test_exactly_what_fits_may_be_asked_for() -> None:
    assert asked(Parameters(max_new_tokens=5, min_new_tokens=5)).max_new_tokens == 5


def test_what_comes_behind_an_infix_takes_room_of_the_same_sequence() -> None:
    most = sampling_params(Parameters(), prompt(50, 10), PrefixSize(), MODEL).max_new_tokens
    assert most == 5


def test_a_decoder_has_its_positions_to_itself() -> None:
    most = Parameters(max_new_tokens=CONTEXT - 10)
    fits = sampling_params(most, prompt(CONTEXT, 1), SHIFTED, SEQ2SEQ)
    assert fits.max_new_tokens == CONTEXT - 10
    with pytest.raises(InvalidParameter):
        sampling_params(most, prompt(CONTEXT, 2), SHIFTED, SEQ2SEQ)


def test_a_stored_max_new_tokens_is_a_wish() -> None:
    stored = settle({}, {"max_new_tokens": 40})
    assert asked(stored).max_new_tokens == 5
    assert asked(stored, tokens=10).max_new_tokens == 40
    with pytest.raises(InvalidParameter):
        asked(settle({"max_new_tokens": 40}, {"max_new_tokens": 2}))


def test_beams_ask_for_what_is_sure_to_fit_unless_told_otherwise() -> None:
    model = replace(MODEL, context=None, capacity_tokens=1024)

    def most(tokens: int, **given: Any) -> int:
        parameters = Parameters(num_beams=8, **given)
        return sampling_params(parameters, prompt(tokens), SHIFTED, model).max_new_tokens

    assert most(5) == most(5, usual_new_tokens=1000) == 1024 // 8 - 15 + 1
    assert most(5, usual_new_tokens=20) == 20
    assert most(5, max_new_tokens=1009 // 8 + 1) == 127
    with pytest.raises(InvalidParameter) as caught:
        most(5, max_new_tokens=128)
    assert caught.value.message == (
        "max_new_tokens must be at most 127 with this prefix, prompt and 8 beams."
    )
    # Rows that copied so long a prompt would not fit at all: only those that share it can.
    assert most(900, usual_new_tokens=1000) == (1024 - 910) // 8 + 1


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        (Parameters(max_new_tokens=6), "parameters.max_new_tokens"),
        (Parameters(min_new_tokens=6), "parameters.min_new_tokens"),
        (Parameters(max_new_tokens=2, min_new_tokens=3), "parameters.min_new_tokens"),
        (Parameters(top_k=VOCABULARY + 1), "parameters.top_k"),
        (Parameters(stop_token_ids=(VOCABULARY,)), "parameters.stop_token_ids"),
        (Parameters(num_return=2), "parameters.num_return"),
        (Parameters(num_beams=4, num_return=5), "parameters.num_return"),
        (Parameters(num_beams=2, temperature=0.5), "parameters.temperature"),
        (Parameters(num_beams=2, stop=("a",)), "parameters.stop"),
        (Parameters(num_beams=2, logprobs=0), "parameters.logprobs"),
        (Parameters(n=2), "parameters.n"),
        (settle({"n": 3, "num_beams": 2}, {}), "parameters.n"),
        (settle({"n": 3, "num_beams": 4, "num_return": 2}, {}), "parameters.n"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(parameters: Parameters, param: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked(parameters)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(max_new_tokens=2, min_new_tokens=3),
        Parameters(top_k=VOCABULARY + 1),
        Parameters(num_beams=2, stop=("a",)),
    ],
)
def test_parameters_to_be_stored_are_refused_without_a_prompt(parameters: Parameters) -> None:
    with pytest.raises(InvalidParameter):
        check_parameters(parameters, MODEL)


@pytest.mark.parametrize(
    ("model", "tokens", "decoder_tokens", "prefix", "param"),
    [
        (MODEL, CONTEXT - 9, 0, SHIFTED, "input"),
        (MODEL, 1, CONTEXT, PrefixSize(), "input"),
        (SEQ2SEQ, CONTEXT + 1, 1, PrefixSize(), "input"),
        (SEQ2SEQ, CONTEXT - 2, 1, PrefixSize(encoder=3), "input"),
        (SEQ2SEQ, 1, CONTEXT - 9, SHIFTED, "decoder_input"),
    ],
)
def test_no_room_for_one_token_is_the_prompts_fault(
    model: Any, tokens: int, decoder_tokens: int, prefix: PrefixSize, param: str
) -> None:
    with pytest.raises(PromptTooLong) as caught:
        sampling_params(Parameters(), prompt(tokens, decoder_tokens), prefix, model)
    assert caught.value.param == param


def test_outputs_are_rows_and_share_the_room() -> None:
    model = replace(MODEL, context=None, capacity_tokens=1024)
    eight = Parameters(n=8, temperature=1)
    found = sampling_params(eight, prompt(5), SHIFTED, model)
    assert (found.n, found.rows, found.beams) == (8, 8, None)
    assert found.max_new_tokens == 1024 // 8 - 15 + 1
    with pytest.raises(InvalidParameter) as caught:
        sampling_params(replace(eight, max_new_tokens=128), prompt(5), SHIFTED, model)
    assert caught.value.message.endswith("with this prefix, prompt and 8 outputs.")
    check_rows(eight, 8)
    with pytest.raises(InvalidParameter) as caught:
        check_rows(eight, 7)
    assert caught.value.param == "parameters.n"


def test_with_beams_n_is_how_many_are_returned() -> None:
    for given in (
        {"n": 3},
        {"num_return": 3},
        {"n": 3, "num_return": 3},
        {"n": 1, "num_return": 3},
    ):
        found = asked(settle({"num_beams": 4, **given}, {}))
        assert found.beams is not None
        assert (found.n, found.rows, found.beams.num_return) == (1, 4, 3)
    stored = settle({"num_beams": 4}, {"n": 2, "temperature": 0})
    assert stored.num_return == 2


def test_who_wants_no_token_need_not_have_the_last_one_read() -> None:
    nothing = Parameters(max_new_tokens=0, prompt_logprobs=1)
    assert asked(nothing, tokens=CONTEXT + 1).max_new_tokens == 0
    with pytest.raises(PromptTooLong):
        asked(nothing, tokens=CONTEXT + 2)


def test_a_seed_is_kept_or_drawn() -> None:
    def seed(given: int | None) -> int:
        return asked(Parameters(seed=given), tokens=1).seed

    assert seed(7) == 7
    assert 0 <= seed(None) < 2**63
    assert seed(None) != seed(None)


def test_tokens_that_the_model_forces_go_along() -> None:
    found = sampling_params(Parameters(), prompt(1, 1), PrefixSize(), SEQ2SEQ)
    assert (found.forced_bos_token_id, found.forced_eos_token_id) == (5, EOS)
    assert (asked().forced_bos_token_id, asked().forced_eos_token_id) == (None, None)


def test_beams() -> None:
    wire: dict[str, Any] = {
        "num_beams": 5,
        "num_return": 3,
        "length_penalty": 0.9,
        "early_stopping": True,
        "no_repeat_ngram_size": 2,
        "beam_length_includes_prompt": True,
    }
    found = asked(settle(wire, {}))
    assert found.no_repeat_ngram_size == 2
    assert found.beams == BeamParams(
        5, length_penalty=0.9, early_stopping="yes", num_return=3, length_includes_prompt=True
    )
    assert asked(settle({"num_beams": 2}, {})).beams == BeamParams(2)


def test_one_beam_is_greedy() -> None:
    assert asked(settle({"num_beams": 1, "early_stopping": "never"}, {})).beams is None
    assert asked(settle({"num_beams": 1, "stop": ["a"]}, {"num_beams": 4})).beams is None
