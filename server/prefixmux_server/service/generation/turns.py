"""Threads for work that holds no event loop, shared by tenants: each in turn, none takes them all.

A thread that is done takes the next work itself: how much gets done does not depend on how often
the event loop comes round. What a turn does is its caller's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Turn:
    """`told` is given what `work` gives or raises."""

    tenant: str
    work: Callable[[], Any]
    told: Future[Any]

    def take(self) -> None:
        try:
            self.told.set_result(self.work())
        except BaseException as error:  # noqa: BLE001 - it is the waiting caller's
            self.told.set_exception(error)


class Turns:
    """At most `threads` at a time; one tenant has at most all but one of them, so that whoever
    comes next waits for nobody's long text."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._free = threads
        self._most = max(1, threads - 1)
        self._busy: Counter[str] = Counter()
        # The first tenant is the next one; whoever has had a turn goes behind the others.
        self._waiting: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self._lock = Lock()

    async def run(self, tenant: str, work: Callable[[], T]) -> T:
        """What `work` gives. Cancelled while it waits, it never begins; later, its thread is
        counted as taken until it is done."""
        turn = _Turn(tenant, work, Future[T]())
        with self._lock:
            self._waiting.setdefault(tenant, deque()).append(turn)
            if begins := self._free > 0:
                self._free -= 1
        if begins:
            self._threads.submit(self._serve)
        return await asyncio.wrap_future(turn.told)

    def close(self) -> None:
        """Nothing that waits begins any more."""
        with self._lock:
            waiting = [turn for turns in self._waiting.values() for turn in turns]
            self._waiting.clear()
        for turn in waiting:
            turn.told.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        """In a thread, while somebody waits who may have it."""
        turn = self._next(None)
        while turn is not None:
            if turn.told.set_running_or_notify_cancel():
                turn.take()
            turn = self._next(turn)

    def _next(self, done: _Turn | None) -> _Turn | None:
        """None gives the thread back; whoever comes then gets it again."""
        with self._lock:
            if done is not None:
                self._busy[done.tenant] -= 1
                if not self._busy[done.tenant]:
                    del self._busy[done.tenant]
            free = (tenant for tenant in self._waiting if self._busy[tenant] < self._most)
            tenant = next(free, None)
            if tenant is None:
                self._free += 1
                return None
            turns = self._waiting.pop(tenant)
            if len(turns) > 1:
                self._waiting[tenant] = turns
            self._busy[tenant] += 1
            return turns.popleft()
