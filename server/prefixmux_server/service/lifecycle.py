"""Whether the server takes new work, and how much of it is under way.

Owned by the process's one event loop. Knows nothing of signals, sockets or the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from prefixmux_server.errors import Draining


class Lifecycle:
    """Once `drain` is called nothing is accepted again; what was accepted may finish."""

    def __init__(self) -> None:
        self._draining = False
        self._accepted = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._cut = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def accepted(self) -> int:
        """Requests that are not answered yet."""
        return self._accepted

    def drain(self) -> None:
        self._draining = True

    def cut(self) -> None:
        """Drain no longer: what is still under way is to be answered with `Draining` now."""
        self._draining = True
        self._cut.set()

    async def until_cut(self) -> None:
        await self._cut.wait()

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Holds the process open for one request. Raises `Draining` once it is leaving."""
        if self._draining:
            raise draining()
        self._accepted += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._accepted -= 1
            if not self._accepted:
                self._idle.set()

    async def idle(self, limit_s: float) -> bool:
        """Wait until nothing is under way or `cut` was called, at most `limit_s`. Returns whether
        nothing is under way."""
        waits = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self.until_cut())]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return self._idle.is_set()


def draining() -> Draining:
    return Draining("The server is shutting down; send the request again to another one.")
