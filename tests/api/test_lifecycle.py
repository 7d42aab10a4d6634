"""Clients that leave, and a server that is about to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from api.asgi import RawCall
from api.conftest import Api, error_of
from service.fakes import ids, native, reply_with
from service.outcomes import finished, step

from prefixmux_server.api.http import body
from prefixmux_server.service.telemetry import pace

pytestmark = pytest.mark.anyio


async def test_a_client_that_leaves_frees_its_row(api: Api) -> None:
    api.engine.gate.clear()
    call = RawCall(api.app, b'{"input": "a"}')
    running = asyncio.create_task(call.run())
    await api.engine.arrived.wait()
    call.left.set()
    await running
    assert api.engine.aborted == [api.engine.submitted[0].id]
    assert api.engine.open == 0
    assert call.messages == []
    assert api.lifecycle.accepted == 0


async def test_a_client_that_leaves_frees_all_rows_of_its_batch(api: Api) -> None:
    api.engine.gate.clear()
    rows = json.dumps({"requests": [{"input": "a"}] * 20}).encode()
    call = RawCall(api.app, rows, "/generate/batch")
    running = asyncio.create_task(call.run())
    while api.engine.open < 20:
        await asyncio.sleep(0)
    call.left.set()
    await running
    assert len(api.engine.aborted) == 20
    assert api.engine.open == 0


async def test_a_client_that_leaves_disturbs_no_other(api: Api) -> None:
    api.engine.reply = reply_with(ids("hello"))
    api.engine.gate.clear()
    staying = asyncio.create_task(api.generate(input="a"))
    await api.engine.arrived.wait()
    call = RawCall(api.app, b'{"input": "b"}')
    leaving = asyncio.create_task(call.run())
    while api.engine.open < 2:
        await asyncio.sleep(0)
    call.left.set()
    await leaving
    api.engine.gate.set()
    assert (await staying).json()["outputs"][0]["text"] == "hello"


async def test_a_body_that_never_ends_is_given_up(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(body, "GRACE_S", 0.01)
    monkeypatch.setattr(body, "MIN_BYTES_PER_S", 1 << 40)
    form = {"content-type": "multipart/form-data; boundary=x"}
    for method, path, headers in [
        ("POST", "/generate", {}),
        ("PUT", "/prefixes/e2e", {}),
        ("POST", "/prefixes", form),
    ]:
        answer = await api.client.request(method, path, content=trickle(), headers=headers)
        error_of(answer, 422, "invalid_request")
    assert api.lifecycle.accepted == 0


async def test_a_drain_lets_accepted_requests_finish_and_takes_no_new_ones(api: Api) -> None:
    api.engine.gate.clear()
    accepted = asyncio.create_task(api.generate(input="a"))
    await api.engine.arrived.wait()
    api.lifecycle.drain()
    ready = await api.client.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
    assert (await api.client.get("/health/live")).status_code == 200
    late = await api.generate(input="b")
    error_of(late, 503, "draining")
    for path in ("/prefixes", "/versions", "/health/other", "/docs/other"):
        error_of(await api.client.get(path), 503, "draining")
    idle = asyncio.create_task(api.lifecycle.idle(60))
    api.engine.gate.set()
    assert (await accepted).status_code == 200
    assert await idle
    assert len(api.engine.submitted) == 1


async def test_the_end_of_a_drain_answers_what_is_left(api: Api) -> None:
    api.engine.gate.clear()
    accepted = asyncio.create_task(api.generate(input="a"))
    await api.engine.arrived.wait()
    api.lifecycle.drain()
    assert not await api.lifecycle.idle(0.01)
    api.lifecycle.cut()
    error_of(await accepted, 503, "draining")
    assert api.engine.open == 0
    assert await api.lifecycle.idle(60)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/generate", "application/json"),
        ("PUT", "/prefixes/e2e", "application/octet-stream"),
        ("POST", "/prefixes", "application/json"),
        ("POST", "/prefixes", "multipart/form-data; boundary=x"),
    ],
)
async def test_the_end_of_a_drain_answers_whose_body_still_arrives(
    api: Api, method: str, path: str, kind: str
) -> None:
    begun = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"--x\r\n"  # what a form begins with
        begun.set()
        await asyncio.Event().wait()

    headers = {"content-type": kind}
    asked = api.client.request(method, path, content=trickle(), headers=headers)
    answering = asyncio.create_task(asked)
    await asyncio.wait_for(begun.wait(), 20)
    api.lifecycle.cut()
    error_of(await asyncio.wait_for(answering, 20), 503, "draining")
    assert api.lifecycle.accepted == 0


async def test_what_outlasts_the_end_of_a_drain_gets_a_typed_error(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server below cancels it, and would answer in its own words."""
    tried = asyncio.Event()

    async def without_end(*_: object) -> None:
        tried.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(api.engine, "probe", without_end)
    accepted = asyncio.create_task(api.client.put("/prefixes/e2e", content=native()))
    await asyncio.wait_for(tried.wait(), 20)
    api.lifecycle.cut()
    accepted.cancel()
    error_of(await accepted, 503, "draining")
    assert api.lifecycle.accepted == 0


async def test_metrics_are_told_until_the_end_of_a_drain(api: Api) -> None:
    api.lifecycle.drain()
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    assert "prefixmux:draining 1" in answer.text


async def test_a_full_queue_says_how_long_it_takes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.engine.capacity = 0
    refused = await api.generate(input="a")
    error_of(refused, 429, "overloaded")
    assert refused.headers["retry-after"] == "1"
    now = 100.0
    monkeypatch.setattr(pace, "monotonic", lambda: now)
    for id in ("one", "two", "three"):
        now += 2.0
        api.engine.tell(finished(id, "eos"))
    api.engine.tell(step(1))
    assert (await api.generate(input="a")).headers["retry-after"] == "4"


async def test_a_cut_ends_the_wait_for_the_drain(api: Api) -> None:
    with api.lifecycle.accept():
        waiting = asyncio.create_task(api.lifecycle.idle(60))
        api.lifecycle.cut()
        assert not await waiting
