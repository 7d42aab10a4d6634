"""Answers that come piece by piece, as the model makes them.

    with client.stream("e2e", "name : Aromi") as stream:
        for event in stream:
            print(event.text, end="", flush=True)
    print(stream.response.usage)

`EventReader` knows the events; the two streams differ in how they wait. A stream ends with its
whole answer or with an exception, never silently short. Leaving the `with` closes the connection,
and the server frees the row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Self, TypeVar, cast

import anyio
import httpx2
from pydantic import ValidationError

from prefixmux.answer import Wire
from prefixmux.errors import (
    APIConnectionError,
    APIResponseError,
    PrefixmuxError,
    status_of,
)
from prefixmux.types import ErrorAnswer, GenerateResponse, TokenEvent
from prefixmux.wire import Target

W = TypeVar("W", bound=Wire)

# The end of an answer follows its last event at once: waited for, so that the connection can be
# used again, but not for whoever holds it back.
DRAIN_S = 0.1


class EventReader:
    """What the events of one answer say. Knows no connection."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        self.request_id: str | None = response.headers.get("x-request-id")
        self.response: GenerateResponse | None = None
        self.events = httpx2.EventSource(response, max_event_size=None)
        self._target = target

    def take(self, event: httpx2.ServerSentEvent) -> TokenEvent | None:
        """The next tokens; None when the event says something else. Raises what `error` says."""
        match event.event:
            case "token":
                return self._parse(TokenEvent, event)
            case "done":
                self.response = self._parse(GenerateResponse, event).named(self.request_id)
            case "error":
                error = self._parse(ErrorAnswer, event).error
                known = error.model_copy(update={"request_id": error.request_id or self.request_id})
                raise known.to_exception(status_of(error.code))
        return None

    def whole(self) -> GenerateResponse:
        if self.response is None:
            raise PrefixmuxError("The stream has not ended yet: its answer comes last.")
        return self.response

    def ended(self) -> None:
        """To be told that nothing follows."""
        if self.response is None:
            raise APIConnectionError(
                f"The stream from {self._target.base_url} was cut before its last event."
            )

    @contextmanager
    def failures(self) -> Iterator[None]:
        """What the connection raises, as this package's errors."""
        try:
            yield
        except httpx2.SSEError as error:
            raise APIResponseError(
                f"{self._target.base_url} answered with something else than a stream;"
                " is it a prefixmux server of this version?"
            ) from error
        except httpx2.RequestError as error:
            raise self._target.failure(error) from error

    def _parse(self, kind: type[W], event: httpx2.ServerSentEvent) -> W:
        try:
            return kind.model_validate_json(event.data)
        except ValidationError as error:
            raise APIResponseError(
                f"The stream from {self._target.base_url} has an event {event.event!r} that"
                " this version cannot read."
            ) from error


class Stream(Iterator[TokenEvent]):
    """The events of one answer; `response` is the whole of it, once they have ended."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        self._http = response
        self._reader = EventReader(response, target)
        self._tokens = self._read()

    @property
    def request_id(self) -> str | None:
        return self._reader.request_id

    @property
    def response(self) -> GenerateResponse:
        """Raises PrefixmuxError before the end."""
        return self._reader.whole()

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


class AsyncStream(AsyncIterator[TokenEvent]):
    """As `Stream`, awaited."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        self._http = response
        self._reader = EventReader(response, target)
        self._tokens = self._read()

    @property
    def request_id(self) -> str | None:
        return self._reader.request_id

    @property
    def response(self) -> GenerateResponse:
        """Raises PrefixmuxError before the end."""
        return self._reader.whole()

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
