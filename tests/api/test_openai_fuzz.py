"""Random requests below /v1 and for scores: a success or a typed error, never a failure."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from api.conftest import Api, error_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.fakes import Script, native

from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.errors import STATUS_OF_CODE

pytestmark = pytest.mark.anyio

many = settings(
    max_examples=100,
    deadline=None,
    # Requests of one test share a server, as they do in life.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
STATUSES = {400, 401, 403, 404, 405, 413, 415, 429, 503, 504}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
names = st.sampled_from(["e2e", "e2e@1", "e2e@2", "tiny", "other"])
common = {
    "temperature": st.floats(0, 2) | values,
    "top_p": st.floats(0, 1) | values,
    "n": st.integers(1, 6) | values,
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3) | values,
    "seed": st.integers() | values,
    "max_tokens": st.integers(0, 9) | values,
    "stream": st.booleans() | values,
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}) | values,
    "top_k": st.integers(-1, 5) | values,
    "min_tokens": st.integers(0, 5) | values,
    "num_beams": st.integers(1, 3) | values,
    "user": values,
    "logit_bias": values,
}
token_ids = st.lists(st.integers(0, 9), min_size=1, max_size=5)
prompts = (
    st.text(min_size=1, max_size=6)
    | token_ids
    | st.lists(st.text(min_size=1, max_size=4) | token_ids, min_size=1, max_size=3)
    | values
)
completions = st.fixed_dictionaries(
    {"model": names, "prompt": prompts},
    optional={
        **common,
        "logprobs": st.integers(0, 5) | values,
        "echo": st.booleans() | values,
        "best_of": st.integers(1, 3) | values,
        "suffix": values,
    },
)
content = (
    st.text(max_size=6)
    | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=4)}))
    | values
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": content},
    optional={"name": st.text(max_size=4), "tool_calls": values},
)
chats = st.fixed_dictionaries(
    {"model": names, "messages": st.lists(messages, min_size=1, max_size=4) | values},
    optional={
        **common,
        "max_completion_tokens": st.integers(1, 9) | values,
        "logprobs": st.booleans() | values,
        "top_logprobs": st.integers(0, 5) | values,
        "response_format": values,
        "tools": values,
        "metadata": values,
    },
)
targets = st.lists(st.text(min_size=1, max_size=4) | token_ids, min_size=1, max_size=4)
parts = st.lists(st.fixed_dictionaries({"task_id": st.just("e2e")}), min_size=1, max_size=3)
scores = st.fixed_dictionaries(
    {"input": st.text(min_size=1, max_size=6) | token_ids, "targets": targets | values},
    optional={
        "task_id": st.just("e2e") | values,
        "version": st.integers(1, 2) | values,
        "compose": parts | values,
        "decoder_input": values,
        "timeout_s": st.floats(1, 9) | values,
    },
)


def found(submit: Submit) -> Script:
    """As many sequences as were asked for."""
    beams = submit.sampling.beams
    if beams is None:
        return Script(((1,), (200, 201)))
    return Script((), "eos", beams=(BeamOutput((1,), -1.0, "eos"),) * beams.num_return)


async def ask(api: Api, path: str, body: Any) -> httpx2.Response:
    api.engine.reply = found
    if not api.store.list_tasks("default").items:
        await api.put("e2e", native())
    answer = await api.client.post(path, content=json.dumps(body))
    assert api.engine.open == 0
    return answer


def check(answer: httpx2.Response) -> None:
    if not answer.is_success:
        assert answer.status_code in STATUSES, answer.text
        error = answer.json()["error"]
        assert error["type"] and error["message"].endswith("."), error
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n") and answer.text.count("[DONE]") == 1
    else:
        choices = answer.json()["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(choices)))


@many
@given(body=completions | values)
async def test_completions(api: Api, body: Any) -> None:
    check(await ask(api, "/v1/completions", body))


@many
@given(body=chats | values)
async def test_chats(api: Api, body: Any) -> None:
    check(await ask(api, "/v1/chat/completions", body))


@many
@given(body=scores | values)
async def test_scores(api: Api, body: Any) -> None:
    answer = await ask(api, "/score", body)
    assert answer.status_code < 500, answer.text
    if answer.is_success:
        told = answer.json()["scores"]
        assert [one["index"] for one in told] == list(range(len(body["targets"])))
        return
    code = answer.json()["error"]["code"]
    error_of(answer, STATUS_OF_CODE[code], code)
