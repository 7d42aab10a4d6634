"""Starting an engine process: until its model is loaded, or it is plain that it will not be."""

from __future__ import annotations

import asyncio
import logging

from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.messages import Alive, EngineEvent, Ready, StartFailed
from prefixmux_server.engine.pipes.link import EngineLink
from prefixmux_server.engine.pipes.process import Start
from prefixmux_server.engine.pipes.schema import WireError

FIRST_DELAY, MAX_DELAY = 0.1, 30.0
# Libraries hold the interpreter for a while as they are loaded; a process that runs is not silent
# for so long.
SILENT_SECONDS = 60.0


async def launch(start: Start) -> tuple[EngineLink, Ready]:
    """A process with its model loaded. Raises `EngineStartError`, leaving no process behind."""
    # Spawning is short and never cut: a cancelled one would leave a process that nobody holds.
    spawning = asyncio.create_task(EngineLink.spawn(start))
    try:
        link = await asyncio.shield(spawning)
        return link, await _ready(link)
    except BaseException:
        link = await spawning
        link.kill()
        await link.reap()
        raise


async def _ready(link: EngineLink) -> Ready:
    try:
        event = await _first_word(link)
    except WireError as error:
        raise EngineStartError("internal_error", "The engine sent no valid message.") from error
    except TimeoutError as error:
        raise EngineStartError("internal_error", "The engine process hangs as it loads.") from error
    if isinstance(event, Ready):
        return event
    if isinstance(event, StartFailed):
        raise EngineStartError(event.code, event.message)
    raise EngineStartError("internal_error", "The engine process ended before it was ready.")


async def _first_word(link: EngineLink) -> EngineEvent | None:
    """What it says when its model is loaded, however long that takes."""
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            event = await link.receive()
        if not isinstance(event, Alive):
            return event


async def relaunch(start: Start, log: logging.Logger) -> tuple[EngineLink, Ready]:
    """As `launch`, after a short delay, and again after twice as long until one succeeds."""
    delay = FIRST_DELAY
    while True:
        await asyncio.sleep(delay)
        try:
            return await launch(start)
        except EngineStartError as error:
            log.error("engine did not restart: %s", error.code)
        delay = min(2 * delay, MAX_DELAY)
