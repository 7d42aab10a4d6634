"""`/generate` with `stream`: what comes, how it ends, and what is free afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api.conftest import Api, error_of
from api.events import StreamCall, events, joined, terminal
from service.fakes import EOS, Script, ids, likely, reply_with

from prefixmux_server.api.http import sse
from prefixmux_server.engine.messages import EngineError

pytestmark = pytest.mark.anyio


def call(api: Api, **body: Any) -> StreamCall:
    return StreamCall(api.app, json.dumps({"input": "a", "stream": True, **body}).encode())


async def finished(api: Api, **body: Any) -> StreamCall:
    made = call(api, **body)
    await made.run()
    assert made.whole
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)
    return made


def paused(text: str, step: int = 1, **more: Any) -> Any:
    """The engine says so much, then nothing until the gate is opened."""
    steps = tuple((id,) for id in ids(text))
    return lambda _: Script(steps, pause=step, **more)


async def test_the_tokens_and_then_the_whole_answer(api: Api) -> None:
    await api.put("e2e")
    api.engine.reply = reply_with([*ids("he€"), EOS], "eos")
    body: dict[str, Any] = {"task_id": "e2e", "input": "name", "parameters": {"seed": 5}}
    response = await api.generate(**body, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-request-id"]
    found = events(response.content)
    assert joined(found) == ("he€", [*ids("he€"), EOS])
    assert {frozenset(event.data) for event in found[:-1]} == {
        frozenset(("index", "text", "token_ids", "logprobs"))
    }
    streamed, whole = terminal(found).data, (await api.generate(**body)).json()
    for answer in (streamed, whole):
        assert answer.pop("id") in [submit.id for submit in api.engine.submitted]
        answer.pop("timing")
    assert streamed == whole


async def test_it_is_sent_token_by_token(api: Api) -> None:
    api.engine.reply = paused("hello", step=2)
    made = call(api)
    running = asyncio.create_task(made.run())
    await api.engine.arrived.wait()
    while joined(events(made.content))[0] != "he":
        made.sent.clear()
        await made.sent.wait()
    assert not made.whole
    api.engine.gate.set()
    await running
    assert terminal(events(made.content)).name == "done"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"task_id": "none"}, 404, "task_not_found"),
        ({"parameters": {"top_p": 0}}, 422, "invalid_parameter"),
        ({"input": "a" * 200}, 422, "prompt_too_long"),
    ],
)
async def test_an_error_before_the_first_token_has_its_status(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    error_of(await api.generate(**{"input": "a", "stream": True, **body}), status, code)


async def test_what_the_engine_refuses_has_its_status(api: Api) -> None:
    api.engine.capacity = 0
    error_of(await api.generate(input="a", stream=True), 429, "overloaded")
    api.engine.capacity = 9
    error = EngineError("prefix_unavailable", "The prefix is gone.")
    api.engine.reply = lambda _: Script((), error=error)
    error_of(await api.generate(input="a", stream=True), 503, "prefix_unavailable")
    api.engine.ready = None
    error_of(await api.generate(input="a", stream=True), 503, "engine_unavailable")
    assert api.lifecycle.accepted == 0


async def test_an_error_after_it_is_the_last_event(api: Api) -> None:
    api.engine.reply = paused("ab", error=EngineError("engine_unavailable", "It is gone."))
    made = call(api)
    running = asyncio.create_task(made.run())
    await made.token()
    api.engine.gate.set()
    await running
    error = terminal(events(made.content)).data["error"]
    assert error["code"] == "engine_unavailable"
    assert set(error) == {"code", "message", "param", "request_id"}
    assert made.whole


async def test_headers_wait_for_a_token_but_not_for_ever(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEADERS_S", 0.01)
    api.engine.gate.clear()
    made = call(api)
    running = asyncio.create_task(made.run())
    await made.sent.wait()
    assert (made.status, made.content) == (200, b"")
    api.engine.gate.set()
    await running
    assert joined(events(made.content))[0] == "hello"


async def test_without_a_token_an_error_still_ends_what_has_begun(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEADERS_S", 0.01)
    api.engine.gate.clear()
    made = await finished(api, parameters={"timeout_s": 0.1})
    (error,) = events(made.content)
    assert (error.name, error.data["error"]["code"]) == ("error", "deadline_exceeded")


async def test_a_silent_stream_is_kept_alive_by_comments(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    api.engine.reply = paused("ab")
    made = call(api)
    running = asyncio.create_task(made.run())
    while made.content.count(b": keep-alive\n\n") < 2:
        made.sent.clear()
        await made.sent.wait()
    api.engine.gate.set()
    await running
    assert joined(events(made.content))[0] == "ab"


@pytest.mark.parametrize("after", ["nothing", "a token"])
async def test_a_client_that_leaves_frees_its_row(api: Api, after: str) -> None:
    api.engine.reply = paused("hello", step=0 if after == "nothing" else 2)
    made = call(api)
    running = asyncio.create_task(made.run())
    await (api.engine.arrived.wait() if after == "nothing" else made.token())
    made.left.set()
    await running
    assert api.engine.aborted == [api.engine.submitted[0].id]
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)
    assert not made.whole


async def test_nothing_runs_on_behind_a_stream(api: Api) -> None:
    before = asyncio.all_tasks()
    await finished(api)
    assert asyncio.all_tasks() == before


async def test_a_drain_lets_a_stream_finish(api: Api) -> None:
    api.engine.reply = paused("hello")
    made = call(api)
    running = asyncio.create_task(made.run())
    await made.token()
    api.lifecycle.drain()
    assert api.lifecycle.accepted == 1
    assert not await api.lifecycle.idle(0.01)
    api.engine.gate.set()
    await running
    assert terminal(events(made.content)).name == "done"
    assert await api.lifecycle.idle(60)


async def test_the_end_of_a_drain_ends_a_stream_with_one_event(api: Api) -> None:
    api.engine.reply = paused("hello")
    made = call(api)
    running = asyncio.create_task(made.run())
    await made.token()
    api.lifecycle.cut()
    await running
    assert terminal(events(made.content)).data["error"]["code"] == "draining"
    assert made.whole
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)


async def test_the_end_of_a_drain_before_the_first_token_is_a_refusal(api: Api) -> None:
    api.engine.gate.clear()
    made = call(api)
    running = asyncio.create_task(made.run())
    await api.engine.arrived.wait()
    api.lifecycle.cut()
    await running
    assert (made.status, json.loads(made.content)["error"]["code"]) == (503, "draining")
    assert api.engine.open == 0


async def test_a_deadline_before_the_first_token_is_a_refusal(api: Api) -> None:
    api.engine.gate.clear()
    answer = await api.generate(input="a", stream=True, parameters={"timeout_s": 0.01})
    error_of(answer, 504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_deadline_ends_a_stream(api: Api) -> None:
    api.engine.reply = paused("hello")
    made = await finished(api, parameters={"timeout_s": 0.2})
    assert terminal(events(made.content)).data["error"]["code"] == "deadline_exceeded"


async def test_a_stop_string_is_never_sent_in_part(api: Api) -> None:
    api.engine.reply = reply_with(ids("say EN or END, then more"))
    made = await finished(api, parameters={"stop": ["END"]})
    found = events(made.content)
    text, token_ids = joined(found)
    (output,) = terminal(found).data["outputs"]
    assert (text, output["text"], output["stop"]) == ("say EN or ", "say EN or ", "END")
    assert token_ids == output["token_ids"] == ids("say EN or END")
    assert len(api.engine.aborted) == 1


async def test_who_reads_slowly_gets_more_at_once_and_holds_no_row(api: Api) -> None:
    api.engine.reply = paused("hello world. and more")
    made = call(api, parameters={"stop": ["."]})
    running = asyncio.create_task(made.run())
    await made.token()
    made.reading.clear()
    api.engine.gate.set()
    while api.engine.open:
        await asyncio.sleep(0)
    before = len(events(made.content))
    made.reading.set()
    await running
    found = events(made.content)
    assert (joined(found)[0], terminal(found).name) == ("hello world", "done")
    assert len(found) - before < len("hello world")


async def test_who_never_reads_is_cut(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_S", 0.05)
    api.engine.reply = paused("hello", step=3)
    made = call(api)
    made.reading.clear()
    running = asyncio.create_task(made.run())
    await api.engine.arrived.wait()
    while not api.lifecycle.accepted:
        await asyncio.sleep(0)
    await running
    assert api.engine.aborted == [api.engine.submitted[0].id]
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)


async def test_a_failure_of_the_server_ends_the_stream_and_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hello, this is a prompt"

    def broken(*_: object) -> None:
        raise ZeroDivisionError(secret)

    api.engine.reply = paused("hello")
    made = call(api)
    running = asyncio.create_task(made.run())
    await made.token()
    monkeypatch.setattr("prefixmux_server.service.generation.generation.answer", broken)
    api.engine.gate.set()
    await running
    error = terminal(events(made.content)).data["error"]
    assert error["code"] == "internal_error"
    assert secret not in made.content.decode()
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)


async def test_outputs_have_their_own_texts_and_ends(api: Api) -> None:
    others = (tuple((id,) for id in ids("xyz")), tuple((id,) for id in ids("u.v")))
    api.engine.reply = lambda _: Script(tuple((id,) for id in ids("a.b")), others=others)
    made = await finished(api, parameters={"n": 3, "temperature": 1, "stop": ["."]})
    found = events(made.content)
    outputs = terminal(found).data["outputs"]
    assert [output["index"] for output in outputs] == [0, 1, 2]
    assert [(output["text"], output["finish_reason"]) for output in outputs] == [
        ("a", "stop"),
        ("xyz", "length"),
        ("u", "stop"),
    ]
    for output in outputs:
        assert joined(found, output["index"]) == (output["text"], output["token_ids"])
    assert api.engine.aborted == []
    assert sorted(index for _, index in api.engine.aborted_outputs) == [0, 2]
    assert terminal(found).data["usage"]["generated_tokens"] == 2 + 3 + 2


async def test_when_stop_strings_have_ended_all_outputs_nothing_runs_on(api: Api) -> None:
    others = (tuple((id,) for id in ids("uu.vv")),)
    api.engine.reply = lambda _: Script(tuple((id,) for id in ids("a.b")), others=others)
    made = await finished(api, parameters={"n": 2, "temperature": 1, "stop": ["."]})
    outputs = terminal(events(made.content)).data["outputs"]
    assert [output["text"] for output in outputs] == ["a", "uu"]
    assert api.engine.aborted == [api.engine.submitted[0].id]


async def test_logprobs_are_those_of_the_tokens(api: Api) -> None:
    api.engine.reply = reply_with(ids("hé"))
    parameters = {"logprobs": 2, "prompt_logprobs": 1}
    made = await finished(api, input="name", parameters=parameters)
    found = events(made.content)
    answer = terminal(found).data
    (output,) = answer["outputs"]
    assert [entry for event in found[:-1] for entry in event.data["logprobs"]] == output["logprobs"]
    assert [entry["token_id"] for entry in output["logprobs"]] == ids("hé")
    first = output["logprobs"][0]
    told = likely(ids("h")[0], 2)
    assert set(first) == {"token_id", "token", "logprob", "top"}
    assert (first["token"], first["logprob"]) == ("h", told.logprob)
    assert [entry["token_id"] for entry in first["top"]] == [entry.token_id for entry in told.top]
    assert set(first["top"][0]) == {"token_id", "token", "logprob"}
    assert answer["prompt_logprobs"][0] is None
    assert [entry["token"] for entry in answer["prompt_logprobs"][1:]] == ["a", "m", "e"]
    assert [len(entry["top"]) for entry in answer["prompt_logprobs"][1:]] == [1, 1, 1]


async def test_text_is_null_without_a_tokenizer(api: Api) -> None:
    api.engine.without_tokenizer()
    made = await finished(api, input=[1], parameters={"logprobs": 0})
    found = events(made.content)
    assert {event.data["text"] for event in found[:-1]} == {None}
    assert terminal(found).data["outputs"][0]["text"] is None
