"""Answers that come piece by piece, as the model makes them.

    with client.stream("e2e", "name : Aromi") as stream:
        for event in stream:
            print(event.text, end="", flush=True)
    print(stream.response.usage)

The events are `EventReader`'s to know; the two streams differ in how they wait. A stream ends with
its whole answer or with an exception, never silently short. Leaving the `with` closes the
connection, and the server frees the row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, suppress
from typing import Self, cast

import anyio
import httpx2

from prefixmux.events import EventReader
from prefixmux.types import GenerateResponse, TokenEvent
from prefixmux.wire import Target

# The end of an answer follows its last event at once: waited for, so that the connection can be
# used again, but not for whoever holds it back.
DRAIN_S = 0.1


class _Answered:
    """What both streams know of their answer, however they wait for it."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        self._http = response
        self._reader = EventReader(response, target)

    @property
    def request_id(self) -> str | None:
        return self._reader.request_id

    @property
    def response(self) -> GenerateResponse:
        """Raises PrefixmuxError before the end."""
        return self._reader.whole()


class Stream(_Answered, Iterator[TokenEvent]):
    """The events of one answer; `response` is the whole of it, once they have ended."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        super().__init__(response, target)
        self._tokens = self._read()

    @property
    def text_stream(self) -> Iterator[str]:
        """The first output's text alone, as it comes."""
        return (event.text for event in self if event.index == 0 and event.text)

    def until_done(self) -> GenerateResponse:
        """Passes over what is left; the whole answer."""
        for _ in self:
            pass
        return self.response

    def close(self) -> None:
        """Gives up what is left, here and at the server."""
        self._tokens.close()
        self._http.close()

    def _read(self) -> Generator[TokenEvent, None, None]:
        reader = self._reader
        with reader.failures():
            for event in reader.events:
                tokens = reader.take(event)
                if tokens is not None:
                    yield tokens
                if reader.response is not None:
                    return
        reader.ended()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenEvent:
        return next(self._tokens)


class AsyncStream(_Answered, AsyncIterator[TokenEvent]):
    """As `Stream`, awaited."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        super().__init__(response, target)
        self._tokens = self._read()

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The first output's text alone, as it comes."""
        return (event.text async for event in self if event.index == 0 and event.text)

    async def until_done(self) -> GenerateResponse:
        async for _ in self:
            pass
        return self.response

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._tokens.aclose()
            await self._http.aclose()

    async def _read(self) -> AsyncGenerator[TokenEvent, None]:
        reader = self._reader
        with reader.failures():
            events = cast("AsyncGenerator[httpx2.ServerSentEvent]", aiter(reader.events))
            async with aclosing(events):
                async for event in events:
                    tokens = reader.take(event)
                    if tokens is not None:
                        yield tokens
                    if reader.response is not None:
                        await _drained(events)
                        return
        reader.ended()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        return await anext(self._tokens)


async def _drained(events: AsyncIterator[httpx2.ServerSentEvent]) -> None:
    with suppress(httpx2.RequestError), anyio.move_on_after(DRAIN_S):
        async for _ in events:
            pass
