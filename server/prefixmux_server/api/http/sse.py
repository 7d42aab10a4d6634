"""Server-sent events: one generation as its tokens come, then one terminal event.

An API says by its `Writer` how its events look; when they go out, and what ends them, is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import Protocol

from fastapi import Request
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from prefixmux_server.api.http import problems
from prefixmux_server.api.http.feed import Feed
from prefixmux_server.api.http.presence import until_gone
from prefixmux_server.api.http.written import paced
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_store.errors import StoreError

SEPARATOR = "\n"
# Headers wait for the first token, so that errors before it have a status of their own.
HEADERS_S = 15.0
KEEP_ALIVE_S = 15
# A reader may stop reading for so long; the row is not kept for one who never goes on.
SEND_S = 60.0

Events = AsyncGenerator[TokenEvent | Answer, None]


class Writer(Protocol):
    """One or more events for each thing there is to tell, in pieces; see `event`."""

    def tokens(self, told: TokenEvent) -> Iterator[str]: ...
    def done(self, answer: Answer) -> Iterator[str]: ...
    def error(self, error: PrefixmuxServerError) -> Iterator[str]: ...


def event(data: Iterable[str], name: str | None = None) -> Iterator[str]:
    """`data` is of one line, as JSON is."""
    yield "data: " if name is None else f"event: {name}{SEPARATOR}data: "
    yield from data
    yield SEPARATOR * 2


async def streaming(
    request: Request, lifecycle: Lifecycle, events: Events, writer: Writer
) -> EventSourceResponse:
    """The response, once there is a token or the wait for it has been long. The body of `request`
    must have been read.

    What goes wrong before is raised, `ClientDisconnect` and `Draining` too. `events` are closed,
    and what they held is free, when the response has been sent or this has raised.
    """
    feed = Feed(events, lifecycle)
    try:
        await _first(request, feed)
        if isinstance(feed.end, Exception):
            raise feed.end
    except BaseException:
        await feed.close()
        raise
    return _Stream(feed, writer)


async def _first(request: Request, feed: Feed) -> None:
    leaving = asyncio.ensure_future(until_gone(request))
    coming = asyncio.ensure_future(feed.news())
    futures = (leaving, coming)
    try:
        await asyncio.wait(futures, timeout=HEADERS_S, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            raise ClientDisconnect
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)


class _Stream(EventSourceResponse):
    """Owns `feed` from here on."""

    def __init__(self, feed: Feed, writer: Writer) -> None:
        super().__init__(
            _body(feed, writer),
            sep=SEPARATOR,
            ping=KEEP_ALIVE_S,
            ping_message_factory=_keep_alive,
            send_timeout=SEND_S,
        )
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            if message.get("more_body"):  # timed by the library
                await send(message)
                return
            async with asyncio.timeout(SEND_S):
                await send(message)

        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:
            raise ClientDisconnect from None
        finally:
            await self._feed.close()
        if isinstance(self._feed.end, Exception) and not _is_typed(self._feed.end):
            raise self._feed.end

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """For ever: the drain ends the feed. The library would start a task that polls for the
        end of uvicorn as long as the loop lives, and here would never be told of it."""
        await asyncio.Event().wait()


async def _body(feed: Feed, writer: Writer) -> AsyncIterator[bytes]:
    while True:
        await feed.news()
        told, end = feed.take(), feed.end
        texts = chain.from_iterable(map(writer.tokens, told))
        if end is not None:
            texts = chain(texts, _terminal(end, writer))
        # Whole events: a keep-alive may come between any two pieces that are sent.
        yield b"".join([piece async for piece in paced(texts)])
        if end is not None:
            return


def _terminal(end: Answer | Exception, writer: Writer) -> Iterator[str]:
    if isinstance(end, Answer):
        return writer.done(end)
    return writer.error(problems.typed(end))


def _is_typed(error: Exception) -> bool:
    return isinstance(error, PrefixmuxServerError | StoreError)


def _keep_alive() -> ServerSentEvent:
    return ServerSentEvent(comment="keep-alive", sep=SEPARATOR)
