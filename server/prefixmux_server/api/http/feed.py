"""What a generation tells, kept for one reader: taken in as it comes, given out as he reads.

Knows nothing of HTTP. The engine never waits for a reader, so a stop string is found and a row
freed in time whatever he does; what he has not read is bounded by the tokens that he asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.generation.likely import Logprobs
from prefixmux_server.service.lifecycle import Lifecycle, draining


class Feed:
    """Of one event loop and one reader; `close` it, whatever happens."""

    def __init__(
        self, events: AsyncGenerator[TokenEvent | Answer, None], lifecycle: Lifecycle
    ) -> None:
        self._told: list[TokenEvent] = []
        self._news = asyncio.Event()
        self.end: Answer | Exception | None = None
        self._reading = asyncio.create_task(self._read(events))
        self._cutting = asyncio.create_task(self._cut(lifecycle))

    async def news(self) -> None:
        """Until there is something to take."""
        await self._news.wait()

    def take(self) -> list[TokenEvent]:
        """All there is, one event for each output. Nothing comes after that once `end` is set."""
        told, self._told = self._told, []
        self._news.clear()
        return told if len(told) < 2 else _merged(told)

    async def close(self) -> None:
        """Has let go of the generation when it returns."""
        for task in (self._reading, self._cutting):
            task.cancel()
        await asyncio.gather(self._reading, self._cutting, return_exceptions=True)

    async def _read(self, events: AsyncGenerator[TokenEvent | Answer, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Answer):
                        self._finish(event)
                        return
                    self._told.append(event)
                    self._news.set()
        except Exception as error:  # noqa: BLE001 - it is the reader's to answer or raise
            self._finish(error)

    async def _cut(self, lifecycle: Lifecycle) -> None:
        await lifecycle.until_cut()
        self._reading.cancel("draining")
        await asyncio.wait((self._reading,))
        self._finish(draining())

    def _finish(self, end: Answer | Exception) -> None:
        """The first end is the only one."""
        if self.end is None:
            self.end = end
        self._news.set()


def _merged(told: Sequence[TokenEvent]) -> list[TokenEvent]:
    by_index: dict[int, list[TokenEvent]] = {}
    for event in told:
        by_index.setdefault(event.index, []).append(event)
    return [_joined(events) for events in by_index.values()]


def _joined(events: Sequence[TokenEvent]) -> TokenEvent:
    first = events[0]
    if len(events) == 1:
        return first
    texts = [event.text for event in events if event.text is not None]
    logprobs = [event.logprobs for event in events if event.logprobs is not None]
    return TokenEvent(
        first.index,
        None if first.text is None else "".join(texts),
        [id for event in events for id in event.token_ids],
        Logprobs.joined(logprobs) if logprobs else None,
    )
