"""What only the awaited client has: calls at once, laziness, cancellation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from client.events import Streaming, done, token
from client.scripted import ScriptedServer, generation, sent_json, task, version

import prefixmux
from prefixmux import APIConnectionError, AsyncClient, GenerateRequest, InvalidArgumentError
from prefixmux.async_prefixes import AsyncPrefixes
from prefixmux.prefixes import Prefixes

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(server: Callable[..., Any]) -> AsyncClient:
    transport = httpx2.MockTransport(server)
    http = httpx2.AsyncClient(transport=transport)
    return AsyncClient("http://server", max_retries=0, http_client=http)


def rows_of(request: httpx2.Request) -> httpx2.Response:
    rows = [
        {"status": 200, "response": generation(text=row["input"])}
        for row in sent_json(request)["requests"]
    ]
    return httpx2.Response(200, json={"results": rows}, headers={"x-request-id": "r-1"})


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [(prefixmux.Client, AsyncClient), (Prefixes, AsyncPrefixes)],
)
def test_both_clients_have_the_same_methods(blocking: type, awaited: type) -> None:
    names = {name for name in vars(blocking) if not name.startswith("_")}
    assert names == {name for name in vars(awaited) if not name.startswith("_")}
    for name in names:
        if isinstance(getattr(blocking, name), property):
            assert isinstance(getattr(awaited, name), property)
            continue
        one = dict(inspect.signature(getattr(blocking, name)).parameters)
        other = dict(inspect.signature(getattr(awaited, name)).parameters)
        if name == "generate_many":
            del other["max_concurrency"]
        assert one == other, name


async def test_rows_go_out_in_pieces_at_once_but_not_too_many_and_come_back_in_order() -> None:
    under_way = most = 0
    turns = [anyio.Event() for _ in range(5)]

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        place = int(sent_json(request)["requests"][0]["input"]) // 256
        if place == 2:
            # The last of the first three ends first, and lets the others end in reverse.
            turns[1].set()
        else:
            await turns[place].wait()
        turns[max(place - 1, 0)].set()
        for later in turns[3:]:
            later.set()
        under_way -= 1
        return rows_of(request)

    requests = [GenerateRequest("e2e", str(row)) for row in range(5 * 256)]
    with anyio.fail_after(30):
        rows = await client_of(answer).generate_many(requests, max_concurrency=3)
    assert [row.unwrap().text for row in rows] == [str(row) for row in range(5 * 256)]
    assert most == 3
    assert rows[0].unwrap().request_id == "r-1"


async def test_the_first_failure_ends_the_other_calls_and_is_raised_as_it_is() -> None:
    cancelled = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if sent_json(request)["requests"][0]["input"] == "256":
            raise httpx2.ReadError("cut")
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)
        raise AssertionError

    requests = [GenerateRequest("e2e", str(row)) for row in range(512)]
    with anyio.fail_after(30), pytest.raises(APIConnectionError):
        await client_of(answer).generate_many(requests)
    assert cancelled == [True]


async def test_no_call_at_once_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="max_concurrency"):
        await client_of(ScriptedServer()).generate_many([{"input": "x"}], max_concurrency=0)


async def test_list_asks_only_for_the_pages_that_are_read() -> None:
    page = httpx2.Response(200, json={"items": [task("a"), task("b")], "next_cursor": "more"})
    server = ScriptedServer(page)
    async for found in client_of(server).prefixes.list():
        assert found.task_id == "a"
        break
    assert len(server.requests) == 1


async def test_a_cancelled_call_closes_its_connection() -> None:
    begun = anyio.Event()
    answer = Streaming(token("a"), done())

    async def hang(request: httpx2.Request) -> httpx2.Response:
        return answer(request)

    async def consume() -> None:
        async with client_of(hang).stream("e2e", "x") as stream:
            await anext(stream)
            begun.set()
            await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            await begun.wait()
            group.cancel_scope.cancel()
    assert answer.body.closed


async def test_an_upload_reads_its_file_in_a_thread_and_tells_its_progress(tmp_path: Path) -> None:
    path = tmp_path / "prefix.safetensors"
    path.write_bytes(b"native")
    told: list[tuple[int, int]] = []
    client = client_of(ScriptedServer(httpx2.Response(201, json=version())))
    await client.prefixes.upload("e2e", path, progress=lambda *sent: told.append(sent))
    assert told[-1] == (6, 6)


async def test_leaving_closes_an_own_http_client_and_no_other() -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await client.version()
    http = httpx2.AsyncClient()
    async with AsyncClient("http://x", http_client=http):
        pass
    assert not http.is_closed
    await http.aclose()
