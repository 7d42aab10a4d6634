"""Threads for work that holds no event loop, shared by tenants: each in turn, none takes them all.

Owned by one event loop. What a turn does is its caller's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """At most `threads` at a time; one tenant has at most all but one of them, so that whoever
    comes next waits for nobody's long text."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._free = threads
        self._most = max(1, threads - 1)
        self._busy: Counter[str] = Counter()
        # The first tenant is the next one; whoever has had a turn goes behind the others.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, tenant: str, work: Callable[[], T]) -> T:
        """What `work` gives. Cancelled while it waits, it never begins; later, its thread is
        counted as taken until it is done."""
        await self._turn(tenant)
        loop = asyncio.get_running_loop()
        running = self._threads.submit(work)
        running.add_done_callback(lambda _: _soon(loop, self._done, tenant))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Nothing that waits begins any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._done(tenant)
            raise

    def _give(self) -> None:
        """Free threads to those who wait."""
        while self._free and (tenant := self._next()) is not None:
            turns = self._waiting.pop(tenant)
            turn = turns.popleft()
            if turns:
                self._waiting[tenant] = turns
            if not turn.cancelled():
                self._free -= 1
                self._busy[tenant] += 1
                turn.set_result(None)

    def _next(self) -> str | None:
        waiting = (tenant for tenant in self._waiting if self._busy[tenant] < self._most)
        return next(waiting, None)

    def _done(self, tenant: str) -> None:
        self._free += 1
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
        self._give()


def _soon(loop: asyncio.AbstractEventLoop, done: Callable[[str], None], tenant: str) -> None:
    """From a thread; a loop that has ended counts nothing any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(done, tenant)
