"""Tells a busy engine from a stuck one and from a dead one, and kills the latter two."""

from __future__ import annotations

import asyncio

from prefixmux_server.engine.pipes.link import EngineLink

# A process that runs at all says so ten times as often as it may be silent.
SILENT_SECONDS = 5.0
BEATS = 10


def beat_seconds(hang_seconds: float) -> float:
    """How often the engine is to say that it lives, and the watch looks."""
    return min(SILENT_SECONDS, hang_seconds) / BEATS


class Watch:
    """Over one engine, idle or not: an idle one that hangs would fail the next request.

    A process that is stopped or deadlocked whole is silent; one that is stuck still beats, and
    says for how long it has been at one piece of work. Silence is counted in looks and not in
    time, so that a pause of this very process (a debugger, a suspended machine) is not taken for
    the engine's.
    """

    def __init__(self, link: EngineLink, hang_seconds: float) -> None:
        self._link = link
        self._hang_seconds = hang_seconds
        self._silent = 0
        self._busy = 0.0

    @property
    def unresponsive(self) -> bool:
        """Half of the time that it is given has gone by."""
        return self._silent > BEATS // 2 or self._busy > self._hang_seconds / 2

    def heard(self, busy: float = 0.0) -> None:
        """The engine said something, and for how long it has been at one piece of work."""
        self._silent = 0
        self._busy = busy

    async def run(self) -> str:
        """Returns once the engine is killed, and says why."""
        while self._silent <= BEATS and self._busy <= self._hang_seconds:
            await asyncio.sleep(beat_seconds(self._hang_seconds))
            self._silent += 1
        self._link.kill()
        if self._silent > BEATS:
            return "it was silent"
        return (
            f"one step ran for more than {self._hang_seconds:g} s; if that is what a step takes "
            "here, raise --hang-seconds or lower --max-batch-tokens"
        )
