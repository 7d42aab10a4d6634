"""Threads that tenants share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from prefixmux_server.service.generation.turns import Turns

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns(3, "test")
    yield made
    made.close()


class Held:
    """Work that says that it has begun and lasts until it may end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.may_end.wait(30)
        return name


async def _until(begun: list[str], count: int) -> None:
    async with asyncio.timeout(30):
        while len(begun) < count:
            await asyncio.sleep(0.001)


async def test_what_work_gives_and_raises_comes_back(turns: Turns) -> None:
    assert await turns.run("a", lambda: 7) == 7
    with pytest.raises(KeyError):
        await turns.run("a", partial({"here": 1}.__getitem__, "missing"))


async def test_one_tenant_never_takes_every_thread(turns: Turns) -> None:
    held = Held()
    many = [asyncio.create_task(turns.run("a", partial(held.work, f"a{n}"))) for n in range(9)]
    await _until(held.begun, 2)
    assert await turns.run("b", lambda: "at once") == "at once"
    assert held.begun == ["a0", "a1"]
    held.may_end.set()
    assert await asyncio.gather(*many) == [f"a{n}" for n in range(9)]


async def test_tenants_go_in_turn() -> None:
    turns, order = Turns(1, "one"), list[str]()
    held = Held()
    first = asyncio.create_task(turns.run("a", lambda: held.work("first")))
    await _until(held.begun, 1)
    asked = ["a", "a", "a", "b", "b", "c"]
    rest = [asyncio.create_task(turns.run(t, partial(order.append, t))) for t in asked]
    await asyncio.sleep(0)
    held.may_end.set()
    await asyncio.gather(first, *rest)
    assert order == ["a", "b", "c", "a", "b", "a"]
    turns.close()


async def test_who_gives_up_waiting_never_begins_and_keeps_no_thread(turns: Turns) -> None:
    held = Held()
    running = [asyncio.create_task(turns.run(t, lambda: held.work("x"))) for t in "aab"]
    await _until(held.begun, 3)
    waiting = asyncio.create_task(turns.run("c", lambda: held.work("never")))
    await asyncio.sleep(0)
    waiting.cancel()
    running[0].cancel()
    await asyncio.gather(waiting, running[0], return_exceptions=True)
    held.may_end.set()
    await asyncio.gather(*running[1:])
    assert held.begun == ["x", "x", "x"]
    both = Held()
    again = [asyncio.create_task(turns.run(t, lambda: both.work("y"))) for t in "aab"]
    await _until(both.begun, 3)
    both.may_end.set()
    await asyncio.gather(*again)


async def test_the_event_loop_is_not_waited_for_between_turns(turns: Turns) -> None:
    left, done = [None] * 50, threading.Event()

    def work() -> None:
        left.pop()
        if not left:
            done.set()

    many = [asyncio.create_task(turns.run("a", work)) for _ in range(50)]
    await asyncio.sleep(0)
    assert done.wait(10), "turns are only given while the loop runs"
    await asyncio.gather(*many)


async def test_what_waits_when_it_closes_is_cancelled() -> None:
    turns, held = Turns(1, "one"), Held()
    first = asyncio.create_task(turns.run("a", lambda: held.work("first")))
    await _until(held.begun, 1)
    second = asyncio.create_task(turns.run("a", lambda: held.work("never")))
    await asyncio.sleep(0)
    turns.close()
    held.may_end.set()
    assert await first == "first"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert held.begun == ["first"]
