"""One submitted request, seen from the event loop: its start, its tokens and one end.

Filled by `client.py`. Its length is bounded by the request's own `max_new_tokens`, so a slow
reader needs no back-pressure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from prefixmux_server.engine.front import GenerationEvent
from prefixmux_server.engine.messages import Finished


class PipedGeneration:
    """`front.Generation`. Ends after `Finished`, or without one after `abort`."""

    def __init__(self, id: str, forget: Callable[[PipedGeneration, int | None], None]) -> None:
        self.id = id
        self._forget = forget
        self._items: deque[GenerationEvent] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def push(self, item: GenerationEvent) -> None:
        self._items.append(item)
        self._arrived.set()

    def abort(self, index: int | None = None) -> None:
        self._forget(self, index)
        if index is not None:
            return
        self._items.clear()
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> PipedGeneration:
        return self

    async def __anext__(self) -> GenerationEvent:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        self._ended = isinstance(item, Finished)
        return item
