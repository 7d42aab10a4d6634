"""Tells a busy engine from a hung one: pings it when it is silent, kills it when it stays so."""

from __future__ import annotations

import asyncio

from prefixmux_server.engine.link import EngineLink
from prefixmux_server.engine.messages import Ping

# How often in `hang_seconds` the watch looks. It counts looks and not time, so that a pause of this
# very process (a debugger, a suspended machine) is not taken for the engine's silence.
LOOKS = 4


class Watch:
    """Over one engine, idle or not: an idle one that hangs would fail the next request.

    A ping left unanswered for `hang_seconds` ends it; from the last sign of life that is a
    quarter to a half more.
    """

    def __init__(self, link: EngineLink, hang_seconds: float) -> None:
        self._link = link
        self._pause = hang_seconds / LOOKS
        self._silent = 0

    @property
    def unresponsive(self) -> bool:
        """Half of the time to answer a ping has gone by."""
        return self._silent > LOOKS // 2

    def heard(self) -> None:
        self._silent = 0

    async def run(self) -> None:
        """Returns once the engine is killed."""
        while self._silent <= LOOKS:
            await asyncio.sleep(self._pause)
            self._silent += 1
            if self._silent == 1:
                self._link.send(Ping(0))
        self._link.kill()
