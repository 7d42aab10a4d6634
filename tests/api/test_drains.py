"""Drains at random moments over real sockets: what was accepted has its end, and only one."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field

import pytest
from api.conftest import Api
from api.raw import Line, Raw, Site, listening, request
from service.fakes import ids, reply_with

from prefixmux_server.api.http.protocol import Limits

pytestmark = pytest.mark.anyio

CLIENTS = 12
TOKENS = 30


@dataclass
class Client:
    """Asks again and again until it is told to go away; `ends` is what it got."""

    line: Line
    streams: bool
    ends: list[str] = field(default_factory=list)

    async def run(self) -> None:
        body = {"input": "a", "stream": self.streams, "parameters": {"max_new_tokens": TOKENS}}
        asked = request("POST", "/generate", json.dumps(body).encode())
        while not self.ends or self.ends[-1] == "ok":
            await self.line.send(asked)
            answer = await self.line.answer()
            self.ends.append("closed" if answer is None else end_of(answer))


def end_of(answer: Raw) -> str:
    """`ok`, or the code of the error; a stream has exactly one end, and it is the last event."""
    if answer.headers["content-type"].startswith("application/json"):
        assert answer.status in (200, 503)
        return "ok" if answer.status == 200 else str(answer.error["code"])
    events = [part.split("\n") for part in answer.body.decode().split("\n\n") if part.strip()]
    names = [lines[0].removeprefix("event: ") for lines in events if lines[0][0] != ":"]
    assert set(names[:-1]) <= {"token"}
    assert names[-1] in ("done", "error")
    if names[-1] == "done":
        return "ok"
    told = json.loads(events[-1][1].removeprefix("data: "))
    return str(told["error"]["code"])


async def busy_engine(api: Api) -> None:
    """Lets a token through now and then, so that requests are at every stage."""
    while True:
        api.engine.gate.set()
        await asyncio.sleep(0)
        api.engine.gate.clear()
        await asyncio.sleep(0.0005)


async def drained(api: Api, site: Site, chance: random.Random, limit_s: float) -> list[Client]:
    """Clients of all kinds, and a drain that begins while they are at it."""
    clients = [Client(await site.connect(), n % 2 == 0) for n in range(CLIENTS)]
    running = [asyncio.create_task(client.run()) for client in clients]
    await asyncio.sleep(chance.uniform(0.0, 0.06))
    api.lifecycle.drain()
    ready = await site.ask(request("GET", "/health/ready"))
    assert ready is not None and (ready.status, b"draining" in ready.body) == (503, True)
    await api.lifecycle.idle(limit_s)
    api.lifecycle.cut()
    await asyncio.gather(*running)
    return clients


@pytest.mark.parametrize("seed", range(10))
async def test_every_accepted_request_has_one_end(api: Api, seed: int) -> None:
    chance = random.Random(seed)
    api.engine.reply = reply_with(ids("h" * TOKENS))
    engine = asyncio.create_task(busy_engine(api))
    limit_s = chance.choice([0.0, 0.01, 20.0])
    async with listening(api.app, Limits()) as site:
        clients = await drained(api, site, chance, limit_s)
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)
    ends = [end for client in clients for end in client.ends]
    assert set(ends) <= {"ok", "draining"}
    assert [client.ends[-1] for client in clients] == ["draining"] * CLIENTS
    assert (api.engine.open, api.lifecycle.accepted) == (0, 0)
    assert not site_tasks()


def site_tasks() -> set[str]:
    """Of requests that are still being served."""
    return {
        task.get_name()
        for task in asyncio.all_tasks()
        if "RequestResponseCycle" in repr(task.get_coro())
    }
