"""All of it or none of it, for whole answers and for streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from prefixmux_server.api.openai.stream import together
from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.generation.together import all_or_none

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Waiting:
    """Work without an end; `ended` are the words that it was cancelled with."""

    ended: list[tuple[object, ...]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self) -> int:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            self.ended.append(cancelled.args)
            raise
        return 0

    async def stream(self) -> AsyncGenerator[TokenEvent | Answer, None]:
        await self.work()
        yield TokenEvent(0, "", [], None)


async def failing(begun: asyncio.Event) -> int:
    await begun.wait()
    raise LookupError("first")


async def failing_stream(begun: asyncio.Event) -> AsyncGenerator[TokenEvent | Answer, None]:
    yield TokenEvent(0, "a", [1], None)
    await failing(begun)


async def read(streams: list[AsyncGenerator[TokenEvent | Answer, None]]) -> None:
    async for _ in together(streams, 1):
        pass


def whole(waiting: Waiting) -> Any:
    return all_or_none([failing(waiting.begun), waiting.work()])


def streamed(waiting: Waiting) -> Any:
    return read([failing_stream(waiting.begun), waiting.stream()])


async def test_results_in_their_order() -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert await all_or_none(later(value) for value in range(5)) == list(range(5))


@pytest.mark.parametrize("run", [whole, streamed])
async def test_the_first_error_ends_the_others_and_is_itself(
    run: Callable[[Waiting], Any],
) -> None:
    waiting = Waiting()
    with pytest.raises(LookupError, match="first"):
        await run(waiting)
    assert waiting.ended == [()]


@pytest.mark.parametrize("run", [all_or_none, None])
async def test_whoever_cancels_says_why_to_all(run: Any) -> None:
    parts = [Waiting(), Waiting()]
    work = (
        all_or_none([part.work() for part in parts])
        if run
        else read([part.stream() for part in parts])
    )
    task = asyncio.ensure_future(work)
    for part in parts:
        await part.begun.wait()
    task.cancel("draining")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [part.ended for part in parts] == [[("draining",)], [("draining",)]]
