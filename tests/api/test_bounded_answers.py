"""Nobody asks for an answer without end: how many log-probabilities a call may be answered with."""

from __future__ import annotations

from typing import Any

import pytest
from api.conftest import Api, error_of

from prefixmux_server.service.generation import budget

pytestmark = pytest.mark.anyio
# Four tokens of a prompt, with one likely one each.
ROW: dict[str, Any] = {"input": "name", "parameters": {"max_new_tokens": 1, "prompt_logprobs": 1}}


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_NUMBERS", 16)


async def test_one_generation(api: Api) -> None:
    assert (await api.generate(**ROW)).status_code == 200
    more = {"input": "name", "parameters": {"max_new_tokens": 9, "logprobs": 1}}
    for stream in (False, True):
        refused = error_of(await api.generate(**more, stream=stream), 422, "invalid_parameter")
        assert refused["param"] == "parameters.logprobs"
        assert "16" in refused["message"]


async def test_rows_share_what_their_call_may_ask_for(api: Api) -> None:
    plain = {"input": "name", "parameters": {"max_new_tokens": 40}}
    for rows, status in ((2, 200), (3, 422)):
        call = {"requests": [ROW, *[plain] * (rows - 1)]}
        found = (await api.client.post("/generate/batch", json=call)).json()["results"]
        assert [row["status"] for row in found] == [status, *[200] * (rows - 1)]
    assert found[0]["error"]["param"] == "parameters.prompt_logprobs"
    assert "fewer rows" in found[0]["error"]["message"]


async def test_prompts_of_a_completion_share_it(api: Api) -> None:
    asked = {"model": "tiny", "max_tokens": 0, "echo": True, "logprobs": 1}
    for prompts, status in ((2, 200), (3, 400)):
        answer = await api.client.post(
            "/v1/completions", json={**asked, "prompt": ["name"] * prompts}
        )
        assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "logprobs"


async def test_targets_share_it(api: Api) -> None:
    for targets, status in ((2, 200), (3, 422)):
        asked = {"input": "nam", "targets": ["e"] * targets}
        answer = await api.client.post("/score", json=asked)
        assert answer.status_code == status, answer.text
    assert error_of(answer, 422, "invalid_parameter")["param"] == "targets"
    assert api.engine.open == 0
