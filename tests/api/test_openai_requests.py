"""What OpenAI's clients may send and what they are told, over a scripted engine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from api.conftest import MAX_ROWS, Api
from service.fakes import (
    CONTEXT,
    EOS,
    EOS_TEXT,
    INFO,
    MODEL,
    SEQ2SEQ,
    Script,
    ids,
    native,
    reply_with,
    tokenizer,
)
from tokenizers.processors import TemplateProcessing

from prefixmux_server.engine.messages import EngineError, Submit

pytestmark = pytest.mark.anyio

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": MESSAGES},
    COMPLETION: {"model": "tiny", "prompt": "hi"},
}


async def ask(api: Api, path: str, **fields: Any) -> httpx2.Response:
    return await api.client.post(path, json={**BODIES[path], **fields})


def error_of(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """What stands under `error`: OpenAI's fields and the request's id."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) - {"reason"} == {"message", "type", "param", "code", "request_id"}
    assert error["code"] == code, error
    assert error["message"].endswith("."), error
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


# (path, field, value): taken, and of no effect.
HARMLESS: list[tuple[str, str, Any]] = [
    *((path, "user", "somebody") for path in BODIES),
    *((path, "logit_bias", {}) for path in BODIES),
    *((path, "logit_bias", None) for path in BODIES),
    *((path, "stream_options", None) for path in BODIES),
    *((path, "n", 1) for path in BODIES),
    *((path, "stop", None) for path in BODIES),
    *((path, "stop", []) for path in BODIES),
    *((path, "stream", False) for path in BODIES),
    (COMPLETION, "suffix", None),
    (COMPLETION, "suffix", ""),
    (COMPLETION, "best_of", 1),
    (COMPLETION, "echo", False),
    (CHAT, "metadata", {"a": "b"}),
    (CHAT, "store", False),
    (CHAT, "service_tier", "auto"),
    (CHAT, "safety_identifier", "x"),
    (CHAT, "prompt_cache_key", "x"),
    (CHAT, "parallel_tool_calls", True),
    (CHAT, "tools", []),
    (CHAT, "tool_choice", "auto"),
    (CHAT, "tool_choice", "none"),
    (CHAT, "response_format", {"type": "text"}),
    (CHAT, "modalities", ["text"]),
    (CHAT, "logprobs", False),
    (CHAT, "top_logprobs", None),
    (CHAT, "reasoning_effort", "none"),
]


async def test_what_is_harmless_changes_nothing(api: Api, subtests: pytest.Subtests) -> None:
    for path in BODIES:
        assert (await ask(api, path, seed=1)).status_code == 200
    plain = dict(zip(BODIES, api.engine.submitted, strict=True))
    for path, field, value in HARMLESS:
        with subtests.test(path=path, field=field, value=value):
            answer = await ask(api, path, seed=1, **{field: value})
            assert answer.status_code == 200, answer.text
            last = api.engine.submitted[-1]
            assert replace(last, id="", deadline=None) == replace(plain[path], id="", deadline=None)


# (path, field, value): would change the answer, and is refused by its name.
REFUSED: list[tuple[str, str, Any]] = [
    *((path, "logit_bias", {"50256": -100}) for path in BODIES),
    *((path, "unknown", 1) for path in BODIES),
    *((path, "model", value) for path in BODIES for value in (None, 1, "")),
    *((path, "temperature", value) for path in BODIES for value in (-1, 11, "1", True)),
    *((path, "top_p", value) for path in BODIES for value in (0, 1.5)),
    *((path, "n", value) for path in BODIES for value in (0, 17, 1.5)),
    *((path, "seed", value) for path in BODIES for value in (2**63, -(2**63) - 1, "1")),
    *((path, "max_tokens", value) for path in BODIES for value in (-1, "16", 1.5)),
    *((path, "presence_penalty", 3) for path in BODIES),
    *((path, "stream", "yes") for path in BODIES),
    (CHAT, "max_tokens", 0),
    (CHAT, "max_completion_tokens", 0),
    (CHAT, "logprobs", 2),
    (CHAT, "top_logprobs", 2),
    (CHAT, "tools", [{"type": "function", "function": {"name": "f"}}]),
    (CHAT, "tool_choice", "required"),
    (CHAT, "functions", [{"name": "f"}]),
    (CHAT, "function_call", {"name": "f"}),
    (CHAT, "response_format", {"type": "json_object"}),
    (CHAT, "modalities", ["text", "audio"]),
    (CHAT, "audio", {"voice": "alloy", "format": "wav"}),
    (CHAT, "web_search_options", {}),
    (CHAT, "reasoning_effort", "high"),
    (CHAT, "verbosity", "low"),
    (CHAT, "store", True),
    (CHAT, "messages", None),
    (CHAT, "messages", []),
    (COMPLETION, "prompt", None),
    (COMPLETION, "prompt", ""),
    (COMPLETION, "prompt", []),
    (COMPLETION, "prompt", [[]]),
    (COMPLETION, "prompt", ["a", ""]),
    (COMPLETION, "prompt", ["a", [1]] * 129),
    (COMPLETION, "prompt", [True]),
    (COMPLETION, "prompt", [1, "a"]),
    (COMPLETION, "prompt", {"a": 1}),
    (COMPLETION, "prompt", [-1]),
    (COMPLETION, "prompt", [MODEL.vocabulary]),
    (COMPLETION, "suffix", "behind"),
    (COMPLETION, "best_of", 2),
    (COMPLETION, "logprobs", 21),
    (COMPLETION, "logprobs", True),
    (COMPLETION, "messages", MESSAGES),
]


async def test_what_would_change_the_answer_is_refused(api: Api, subtests: pytest.Subtests) -> None:
    for path, field, value in REFUSED:
        with subtests.test(path=path, field=field, value=str(value)[:40]):
            answer = await ask(api, path, **{field: value})
            error = error_of(answer, 400, "invalid_request")
            assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert api.engine.submitted == []


async def test_what_is_left_out_is_asked_for(api: Api) -> None:
    for path, body in BODIES.items():
        for field in body:
            sent = {name: value for name, value in body.items() if name != field}
            answer = await api.client.post(path, json=sent)
            assert error_of(answer, 400, "invalid_request")["param"] == field


MESSAGES_REFUSED: list[tuple[Any, str]] = [
    ({"role": "tool", "content": "4", "tool_call_id": "a"}, "messages.0.role"),
    ({"role": "function", "content": "4", "name": "f"}, "messages.0.role"),
    ({"role": "user"}, "messages.0.content"),
    ({"role": "user", "content": None}, "messages.0.content"),
    ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content"),
    ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages.0.content"),
    ({"role": "user", "content": "a", "other": 1}, "messages.0.other"),
    ({"role": "assistant", "content": "a", "tool_calls": [{}]}, "messages.0.tool_calls"),
    ("hi", "messages.0"),
]


@pytest.mark.parametrize(("message", "param"), MESSAGES_REFUSED)
async def test_messages_that_are_not_read(api: Api, message: Any, param: str) -> None:
    answer = await ask(api, CHAT, messages=[message])
    assert error_of(answer, 400, "invalid_request")["param"] == param


async def test_an_assistants_message_as_the_client_got_it(api: Api) -> None:
    said = {"role": "assistant", "content": "a", "refusal": None, "tool_calls": None, "audio": None}
    answer = await ask(api, CHAT, messages=[*MESSAGES, said, *MESSAGES])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
async def test_the_apis_own_defaults(api: Api, path: str) -> None:
    await ask(api, path)
    (submit,) = api.engine.submitted
    most = 16 if path == COMPLETION else CONTEXT - len(submit.input_ids) + 1
    assert (submit.sampling.temperature, submit.sampling.max_new_tokens) == (1.0, most)
    api.engine.serve(replace(MODEL, context=4096, capacity_tokens=9000))
    await ask(api, path)
    most = 16 if path == COMPLETION else 1024
    assert api.engine.submitted[-1].sampling.max_new_tokens == most


@pytest.mark.parametrize("path", BODIES)
async def test_what_a_version_stores_wins_over_the_apis_defaults(api: Api, path: str) -> None:
    stored = {"max_new_tokens": 5, "temperature": 0, "top_k": 3}
    fields = {"task_id": "cold", "parameters": json.dumps(stored)}
    await api.client.post("/prefixes", data=fields, files={"file": native()})
    await ask(api, path, model="cold")
    await ask(api, path, model="cold", temperature=0.5, max_tokens=7)
    first, second = (submit.sampling for submit in api.engine.submitted)
    assert (first.max_new_tokens, first.temperature, first.top_k) == (5, 0, 3)
    assert (second.max_new_tokens, second.temperature, second.top_k) == (7, 0.5, 3)


async def test_a_task_that_stores_beams_is_searched(api: Api) -> None:
    fields = {"task_id": "beams", "parameters": json.dumps({"num_beams": 3})}
    await api.client.post("/prefixes", data=fields, files={"file": native()})
    await ask(api, COMPLETION, model="beams")
    await ask(api, COMPLETION, model="beams", num_beams=1)
    searched, sampled = (submit.sampling for submit in api.engine.submitted)
    assert (searched.beams is None, sampled.beams is None) == (False, True)
    assert (searched.temperature, sampled.temperature) == (0, 1)
    refused = await ask(api, COMPLETION, model="beams", stream=True)
    assert error_of(refused, 400, "invalid_request")["param"] == "stream"


async def test_extras_that_other_servers_know(api: Api) -> None:
    extras = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "ignore_eos": True}
    answer = await ask(api, COMPLETION, **extras, min_tokens=2, stop_token_ids=[7], max_tokens=9)
    assert answer.status_code == 200, answer.text
    sampling = api.engine.submitted[0].sampling
    assert {name: getattr(sampling, name) for name in extras} == extras
    assert (sampling.min_new_tokens, sampling.stop_token_ids) == (2, (7,))
    much = await ask(api, COMPLETION, min_tokens=9, max_tokens=8)
    error = error_of(much, 400, "invalid_parameter")
    assert error["param"] == "min_tokens"
    assert error["message"] == "min_tokens must be at most max_tokens, here 8."


async def test_names_of_models(api: Api) -> None:
    await api.put("e2e", native(3, 0.5))
    await api.put("e2e", native(3, 0.25))
    digests = [api.store.resolve("default", "e2e", version).digests for version in (1, 2)]
    for name in ("e2e@1", "e2e@2", "e2e", "tiny"):
        assert (await ask(api, COMPLETION, model=name)).json()["model"] == name
    used = [submit.prefixes for submit in api.engine.submitted]
    assert used == [digests[0], digests[1], digests[1], ()]
    for name in ("e2e@3", "other", "e2e@x", "e2e@99999999999999999999", "TINY", "\u00e9", "e2e\n"):
        for path in BODIES:
            error = error_of(await ask(api, path, model=name), 404, "model_not_found")
            assert error["param"] == "model"
            assert name not in error["message"]


async def test_a_base_model_with_a_slash_in_its_name(api: Api) -> None:
    api.engine.serve(replace(MODEL, id="org/Name"))
    assert (await api.client.get("/v1/models/org%2FName")).json()["id"] == "org/Name"
    assert (await ask(api, COMPLETION, model="org/Name")).status_code == 200
    error_of(await api.client.get("/v1/models/org%2FOther"), 404, "model_not_found")


async def test_many_tasks_are_one_list(api: Api) -> None:
    content = native()
    for number in range(3):
        await api.put(f"task-{number}", content)
    await api.client.put("/prefixes/task-9", content=content)
    fields = {"task_id": "asleep", "activate": "false"}
    await api.client.post("/prefixes", data=fields, files={"file": content})
    listed = (await api.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert names == ["tiny", "task-0", "task-1", "task-2", "task-9"]
    assert {model["object"] for model in listed["data"]} == {"model"}
    error_of(await api.client.get("/v1/models/asleep"), 404, "model_not_found")
    assert (await api.client.get("/v1/models/asleep@1")).status_code == 200


async def test_a_chat_is_encoded_without_more_special_tokens(api: Api) -> None:
    await ask(api, CHAT)
    fields: dict[str, Any] = {"task_id": "story", "text": "once"}
    stored = await api.client.post("/prefixes", json=fields)
    assert stored.status_code == 201, stored.text
    await ask(api, CHAT, model="story")
    alone, behind = (submit.input_ids for submit in api.engine.submitted)
    assert alone == (EOS, *ids("user:hi;"))
    assert behind == tuple(ids("user:hi;"))


async def test_a_tokenizer_that_begins_every_text_begins_a_chat_once(api: Api) -> None:
    beginning = tokenizer()
    beginning.post_processor = TemplateProcessing(
        single=f"{EOS_TEXT} $A", special_tokens=[(EOS_TEXT, EOS)]
    )
    api.engine.serve(MODEL, replace(INFO, json=beginning.to_str()))
    await ask(api, COMPLETION)
    await ask(api, CHAT)
    stored = await api.client.post("/prefixes", json={"task_id": "story", "text": "once"})
    assert stored.status_code == 201, stored.text
    await ask(api, COMPLETION, model="story")
    await ask(api, CHAT, model="story")
    prompts = [submit.input_ids for submit in api.engine.submitted]
    said = tuple(ids("user:hi;"))
    assert prompts == [(EOS, *ids("hi")), (EOS, *said), tuple(ids("hi")), said]


async def test_models_that_cannot_chat(api: Api) -> None:
    for info, words in (
        (replace(INFO, chat_template=None), "/v1/completions"),
        (replace(INFO, chat_template="{% broken"), "/v1/completions"),
        (replace(INFO, chat_template="{{ 1 / 0 }}"), "roles"),
        (replace(INFO, chat_template="{{ raise_exception('No.') }}"), "No."),
    ):
        api.engine.serve(MODEL, info)
        error = error_of(await ask(api, CHAT), 400, "invalid_request")
        assert error["param"] == "messages"
        assert words in error["message"]
    api.engine.without_tokenizer()
    for path in BODIES:
        error_of(await ask(api, path), 400, "tokenizer_unavailable")


async def test_without_a_chat_template_a_tasks_own_takes_one_message(api: Api) -> None:
    api.engine.serve(MODEL, replace(INFO, chat_template=None))
    fields = {"task_id": "asks", "template": "Q: {input}\nA:"}
    await api.client.post("/prefixes", data=fields, files={"file": native()})
    assert (await ask(api, CHAT, model="asks")).status_code == 200
    assert api.engine.submitted[0].input_ids == tuple(ids("Q: hi\nA:"))
    bad: list[Any] = [
        [*MESSAGES, *MESSAGES],
        [{"role": "system", "content": "hi"}],
        [{"role": "user", "content": ""}],
    ]
    for messages in bad:
        answer = await ask(api, CHAT, model="asks", messages=messages)
        assert error_of(answer, 400, "invalid_request")["param"] == "messages"
    bare = await ask(api, CHAT)
    assert "with a template" in error_of(bare, 400, "invalid_request")["message"]


async def test_an_encoder_decoder_model_tells_nothing_of_its_prompt(api: Api) -> None:
    api.engine.serve(SEQ2SEQ)
    plain = await ask(api, COMPLETION, echo=True)
    assert plain.json()["choices"][0]["text"] == "hihello"
    told = await ask(api, COMPLETION, echo=True, logprobs=1)
    assert error_of(told, 400, "invalid_request")["param"] == "echo"
    streamed = await ask(api, COMPLETION, echo=True, logprobs=1, stream=True)
    error_of(streamed, 400, "invalid_request")


async def test_bytes_and_names_of_tokens(api: Api) -> None:
    """Half a character, a whole one, and the end."""
    said = [*ids("\u00e9"), *ids("a"), EOS]
    api.engine.reply = reply_with(said, "eos")
    answer = (await ask(api, COMPLETION, prompt="\u00e9x", logprobs=0, echo=True)).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("\u00e9x\u00e9a", "stop")
    halves = ["bytes:\\xc3", "bytes:\\xa9"]
    assert choice["logprobs"]["tokens"] == [*halves, "x", *halves, "a", EOS_TEXT]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 2, 2, 3, 4]
    assert choice["logprobs"]["token_logprobs"] == [None, *[-0.5] * 6]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    (choice,) = (await ask(api, CHAT, logprobs=True)).json()["choices"]
    told = choice["logprobs"]["content"]
    assert [one["bytes"] for one in told] == [[0xC3], [0xA9], [0x61], list(EOS_TEXT.encode())]


async def test_statuses_and_types(api: Api) -> None:
    for path in ("/v1", "/v1/", "/v1/nothing", "/v1/models/a/b"):
        assert error_of(await api.client.get(path), 404, "not_found")["param"] is None
    wrong = await api.client.get(CHAT)
    assert error_of(wrong, 405, "method_not_allowed")["type"] == "invalid_request_error"
    assert wrong.headers["allow"] == "POST"
    error_of(await api.client.post(CHAT, content=b"{"), 400, "invalid_json")
    unknown = await api.client.get("/v1/models?limit=3")
    assert error_of(unknown, 400, "invalid_request")["param"] == "limit"
    large = await ask(api, COMPLETION, prompt="x" * 30_000)
    error_of(large, 413, "body_too_large")
    long = await ask(api, COMPLETION, prompt="x" * (CONTEXT + 9))
    assert error_of(long, 400, "context_length_exceeded")["param"] == "prompt"
    wide = await ask(api, COMPLETION, n=MAX_ROWS + 1)
    assert error_of(wide, 400, "invalid_parameter")["param"] == "n"
    api.engine.capacity = 0
    busy = await ask(api, CHAT)
    assert error_of(busy, 429, "overloaded")["type"] == "rate_limit_error"
    assert busy.headers["retry-after"]
    api.engine.ready = None
    down = await ask(api, CHAT)
    assert error_of(down, 503, "engine_unavailable")["type"] == "server_error"


async def test_a_scope_is_asked_for_first(api: Api) -> None:
    key = api.store.keys.create("default", ("read",)).key
    locked = await ask(api, CHAT)
    assert error_of(locked, 401, "unauthorized")["type"] == "authentication_error"
    assert locked.headers["www-authenticate"] == "Bearer"
    headers = {"authorization": f"Bearer {key}"}
    for path, body in BODIES.items():
        answer = await api.client.post(path, json={**body, "model": "no"}, headers=headers)
        assert error_of(answer, 403, "forbidden")["type"] == "permission_error"


async def test_a_stream_that_fails_says_so_and_is_not_done(api: Api) -> None:
    error = EngineError("non_finite_output", "The output was not finite.")
    api.engine.reply = lambda _submit: Script(tuple((id,) for id in ids("he")), None, error=error)
    for path in BODIES:
        api.engine.gate.set()
        answer = await ask(api, path, stream=True, max_tokens=5)
        lines = [line for line in answer.text.split("\n") if line]
        last = json.loads(lines[-1].removeprefix("data: "))["error"]
        assert (last["code"], last["type"]) == ("non_finite_output", "invalid_request_error")
        assert "[DONE]" not in answer.text


async def test_one_prompt_that_fails_ends_all(api: Api) -> None:
    refused = await ask(api, COMPLETION, prompt=["a", "x" * (CONTEXT + 1)], echo=True)
    error_of(refused, 400, "context_length_exceeded")
    api.engine.capacity = 1
    api.engine.gate.clear()
    for stream in (False, True):
        busy = await ask(api, COMPLETION, prompt=["a", "b"], stream=stream)
        error_of(busy, 429, "overloaded")
        assert api.engine.open == 0


@pytest.mark.parametrize("path", [*BODIES, "/score"])
async def test_limits_hold_before_anything_is_prepared(api: Api, path: str) -> None:
    api.store.tenants.set("default", max_running=1, max_waiting=1)
    api.engine.gate.clear()
    body = BODIES.get(path, {"input": "hi", "targets": ["a"]})
    asked = [asyncio.create_task(api.client.post(path, json=body)) for _ in range(2)]
    while api.engine.open < 2:
        await asyncio.sleep(0)
    refused = await api.client.post(path, json={**body, "echo": True} if "prompt" in body else body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
    assert refused.headers["retry-after"]
    api.engine.gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200]


async def test_one_prompt_that_fails_ends_the_stream_of_all(api: Api) -> None:
    def reply(submit: Submit) -> Script:
        bad = submit.input_ids == tuple(ids("b"))
        error = EngineError("non_finite_output", "The output was not finite.") if bad else None
        return Script(((1,), (2,)) * 8, None if bad else "length", error=error)

    api.engine.reply = reply
    answer = await ask(api, COMPLETION, prompt=["a", "b", "c"], stream=True, max_tokens=16)
    lines = [line for line in answer.text.split("\n") if line]
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "non_finite_output"
    assert "[DONE]" not in answer.text
    assert api.engine.open == 0
