from __future__ import annotations

from dataclasses import replace

import pytest
from service.fakes import CAPACITY, CONTEXT, MODEL, VOCABULARY

from prefixmux_server.errors import InvalidParameter, InvalidRequest, PromptTooLong
from prefixmux_server.service.limits import PrefixSize, check_prompt, room, sampling_params
from prefixmux_server.service.request import Parameters

SHIFTED = PrefixSize(tokens=10, position_offset=10)
UNSHIFTED = PrefixSize(tokens=10, position_offset=0)


@pytest.mark.parametrize(
    ("prompt", "prefix", "expected"),
    [
        (1, PrefixSize(), CONTEXT),
        (CONTEXT, PrefixSize(), 1),
        (CONTEXT + 1, PrefixSize(), 0),
        (5, SHIFTED, CONTEXT - 14),
        (5, UNSHIFTED, CONTEXT - 4),
    ],
)
def test_room_ends_with_the_position_table(prompt: int, prefix: PrefixSize, expected: int) -> None:
    assert room(prompt, prefix, MODEL) == expected


def test_room_without_a_table_ends_with_the_memory() -> None:
    assert room(5, SHIFTED, replace(MODEL, context=None)) == CAPACITY - 15


def test_room_never_exceeds_the_memory() -> None:
    assert room(5, SHIFTED, replace(MODEL, capacity_tokens=20)) == 5


def test_max_new_tokens_defaults_to_what_fits_and_at_most_128() -> None:
    assert sampling_params(Parameters(), 60, PrefixSize(), MODEL).max_new_tokens == 5
    roomy = replace(MODEL, context=None)
    assert sampling_params(Parameters(), 60, PrefixSize(), roomy).max_new_tokens == 128


def test_exactly_what_fits_may_be_asked_for() -> None:
    asked = Parameters(max_new_tokens=5, min_new_tokens=5)
    assert sampling_params(asked, 60, PrefixSize(), MODEL).max_new_tokens == 5


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (Parameters(max_new_tokens=6), "parameters.max_new_tokens"),
        (Parameters(min_new_tokens=6), "parameters.min_new_tokens"),
        (Parameters(max_new_tokens=2, min_new_tokens=3), "parameters.min_new_tokens"),
        (Parameters(top_k=VOCABULARY + 1), "parameters.top_k"),
        (Parameters(stop_token_ids=(VOCABULARY,)), "parameters.stop_token_ids"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_name(asked: Parameters, param: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        sampling_params(asked, 60, PrefixSize(), MODEL)
    assert caught.value.param == param


def test_no_room_for_one_token_is_the_prompts_fault() -> None:
    with pytest.raises(PromptTooLong):
        sampling_params(Parameters(), CONTEXT - 9, SHIFTED, MODEL)


def test_a_seed_is_kept_or_drawn() -> None:
    def seed(asked: int | None) -> int:
        return sampling_params(Parameters(seed=asked), 1, PrefixSize(), MODEL).seed

    assert seed(7) == 7
    assert 0 <= seed(None) < 2**63
    assert seed(None) != seed(None)


@pytest.mark.parametrize("input_ids", [(), (-1,), (0, VOCABULARY), (2**70,)])
def test_ids_are_those_of_the_vocabulary(input_ids: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_prompt(input_ids, MODEL)
    assert caught.value.param == "input"


def test_every_id_of_the_vocabulary_may_be_sent() -> None:
    check_prompt(tuple(range(VOCABULARY)), MODEL)
