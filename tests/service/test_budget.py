"""How many log-probabilities a call may be answered with."""

from __future__ import annotations

from typing import Any

import pytest

from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.errors import InvalidParameter
from prefixmux_server.service.generation.budget import MAX_NUMBERS, check_numbers


@pytest.mark.parametrize(
    ("asked", "tokens", "rows", "name"),
    [
        ({"max_new_tokens": MAX_NUMBERS // 2, "logprobs": 1}, 10, 1, "logprobs"),
        ({"max_new_tokens": MAX_NUMBERS // 32, "logprobs": 1, "n": 16}, 10, 1, "logprobs"),
        ({"max_new_tokens": MAX_NUMBERS // 32, "logprobs": 0, "n": 8}, 10, 4, "logprobs"),
        ({"max_new_tokens": 1, "prompt_logprobs": 3}, MAX_NUMBERS // 4, 1, "prompt_logprobs"),
        ({"max_new_tokens": 1, "prompt_logprobs": 3}, MAX_NUMBERS // 64, 16, "prompt_logprobs"),
    ],
)
def test_as_many_as_there_may_be_and_one_more(
    asked: dict[str, Any], tokens: int, rows: int, name: str
) -> None:
    check_numbers(SamplingParams(**asked), tokens, rows)
    more = {"prompt_logprobs": asked.get("prompt_logprobs", 0)}
    with pytest.raises(InvalidParameter) as refused:
        check_numbers(SamplingParams(**{**asked, **more}), tokens + 1, rows)
    assert refused.value.param == f"parameters.{name}"
    assert str(MAX_NUMBERS // rows) in refused.value.message


def test_without_log_probabilities_there_is_no_bound() -> None:
    check_numbers(SamplingParams(MAX_NUMBERS * 2, n=16), MAX_NUMBERS * 2, 256)
