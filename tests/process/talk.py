"""What the tests of this folder say to an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from process.fake_engine import HANG

from prefixmux_server.engine.front import Generation
from prefixmux_server.engine.messages import Finished, Submit, TokenDelta
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.pipes.client import EngineClient
from prefixmux_server.engine.settings import EngineSettings

FACTORY = "process.fake_engine:build"
ENDLESS = 1_000_000


def settings(
    model: str = "fake", store: str = "", rows: int = 64, waiting: int = 1024
) -> EngineSettings:
    return EngineSettings(
        model=model, store=store, max_batch_rows=rows, max_waiting=waiting, threads=1
    )


def request(
    id: str,
    token: int = 7,
    length: int = 3,
    prefixes: tuple[str, ...] = (),
    deadline: float | None = None,
    tenant: str = "tenant",
) -> Submit:
    sampling = SamplingParams(max_new_tokens=length)
    return Submit(id, tenant, prefixes, (1, token), sampling, deadline=deadline)


@asynccontextmanager
async def engine(
    told: EngineSettings | None = None, *, restart: bool = True, hang_seconds: float = 60.0
) -> AsyncIterator[EngineClient]:
    client = EngineClient(
        told or settings(), factory=FACTORY, restart=restart, hang_seconds=hang_seconds
    )
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def collect(generation: Generation) -> tuple[list[int], Finished | None]:
    """Every token, and the end if there was one."""
    tokens: list[int] = []
    end: Finished | None = None
    async for item in generation:
        assert end is None
        if isinstance(item, TokenDelta):
            tokens += item.token_ids
        elif isinstance(item, Finished):
            end = item
    return tokens, end


async def generate(client: EngineClient, submit: Submit) -> tuple[list[int], Finished | None]:
    return await collect(client.submit(submit))


async def first_tokens(generation: Generation) -> tuple[int, ...]:
    async for item in generation:
        if isinstance(item, TokenDelta):
            return item.token_ids
    raise AssertionError("it ended without a token")


def pid(client: EngineClient) -> int:
    """The fake engine's process: it is the name of its model."""
    assert client.ready is not None
    return int(client.ready.model.id)


HANG_REQUEST = request("hangs", token=HANG)
