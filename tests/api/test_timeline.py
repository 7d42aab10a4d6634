"""`GET /requests/{id}/timeline` over HTTP."""

from __future__ import annotations

import asyncio

import pytest
from api.conftest import Api, error_of
from service.fakes import Script, ids, reply_with
from service.outcomes import row, started, step

from prefixmux_server.engine.messages import EngineError

pytestmark = pytest.mark.anyio


async def test_a_request_is_found_by_its_id_and_by_its_callers(api: Api) -> None:
    await api.put("e2e")
    api.engine.reply = reply_with(ids("hello"))
    headers = {"x-request-id": "mine-1"}
    body = {"task_id": "e2e", "input": "abc"}
    answer = (await api.client.post("/generate", json=body, headers=headers)).json()
    by_id = (await api.client.get(f"/requests/{answer['id']}/timeline")).json()
    assert by_id == (await api.client.get("/requests/mine-1/timeline")).json()
    assert (by_id["id"], by_id["request_id"]) == (answer["id"], "mine-1")
    assert (by_id["task_id"], by_id["version"], by_id["outcome"]) == ("e2e", 1, "ok")
    assert (by_id["queue_s"], by_id["prefix_load_s"]) == (0.25, 0.125)
    assert by_id["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert by_id["generated_tokens"] == answer["usage"]["generated_tokens"]
    assert by_id["preemptions"] == 0
    assert by_id["decode"]["rows"] == {"min": None, "mean": None, "max": None}


async def test_the_engines_steps_are_in_it(api: Api) -> None:
    api.engine.gate.clear()
    asked = api.client.post("/generate", json={"input": "abc"}, headers={"x-request-id": "r"})
    asking = asyncio.create_task(asked)
    await api.engine.arrived.wait()
    id = api.engine.submitted[0].id
    api.engine.tell(started(id))
    api.engine.tell(step(1, row(id, 3), row("another")))
    api.engine.tell(step(2, row(id)))
    error_of(await api.client.get("/requests/r/timeline"), 404, "not_found")
    api.engine.gate.set()
    await asking
    found = (await api.client.get("/requests/r/timeline")).json()
    assert (found["prefill"]["steps"], found["prefill"]["rows"]["max"]) == (1, 2)
    assert (found["decode"]["steps"], found["decode"]["rows"]["mean"]) == (1, 1)


async def test_what_failed_has_a_timeline_if_it_was_admitted(api: Api) -> None:
    pushed_out = EngineError("overloaded", "Another tenant had fewer waiting.")
    api.engine.reply = lambda _: Script((), error=pushed_out)
    headers = {"x-request-id": "full"}
    error_of(
        await api.client.post("/generate", json={"input": "a"}, headers=headers), 429, "overloaded"
    )
    found = (await api.client.get("/requests/full/timeline")).json()
    assert (found["outcome"], found["ttft_s"]) == ("overloaded", None)
    headers = {"x-request-id": "lost"}
    await api.client.post("/generate", json={"task_id": "missing", "input": "a"}, headers=headers)
    error_of(await api.client.get("/requests/lost/timeline"), 404, "not_found")


@pytest.mark.parametrize("id", ["x", "%00", "..%2F..%2Fetc", "a" * 5000, "%ff"])
async def test_unknown_requests(api: Api, id: str) -> None:
    error_of(await api.client.get(f"/requests/{id}/timeline"), 404, "not_found")
