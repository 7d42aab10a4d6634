"""One submitted request, seen from the event loop: its start, its tokens and one end.

Filled by `client.py`. Its length is bounded by the request's own `max_new_tokens`, so a slow
reader needs no back-pressure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from prefixmux_server.engine.messages import Finished, Started, TokenDelta


class PipedGeneration:
    """`front.Generation`. Ends after `Finished`, or without one after `abort`."""

    def __init__(self, id: str, forget: Callable[[PipedGeneration], None]) -> None:
        self.id = id
        self._forget = forget
        self._items: deque[Started | TokenDelta | Finished] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def push(self, item: Started | TokenDelta | Finished) -> None:
        self._items.append(item)
        self._arrived.set()

    def abort(self) -> None:
        self._forget(self)
        self._items.clear()
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> PipedGeneration:
        return self

    async def __anext__(self) -> Started | TokenDelta | Finished:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        self._ended = isinstance(item, Finished)
        return item
