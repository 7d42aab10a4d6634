"""The awaited client in blocking clothes, so that one test holds for both clients."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, cast

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from prefixmux import AsyncClient, AsyncStream, Client, Stream, TokenEvent


def awaited(client: AsyncClient) -> Client:
    """Each call runs to its end in a loop of its own."""
    return cast("Client", _Awaited(client))


class _Awaited:
    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(_call, found) if callable(found) else _Awaited(found)


def _call(method: Callable[..., Any], *given: Any, **named: Any) -> Any:
    made = method(*given, **named)
    if inspect.isawaitable(made):
        return anyio.run(_awaiting, made)
    if isinstance(made, AsyncIterator):
        return iter(anyio.run(_collected, made))
    if isinstance(made, AsyncClient):
        return _Awaited(made)
    return _entered(made)


async def _awaiting(made: Any) -> Any:
    return await made


async def _collected(made: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in made]


@contextmanager
def _entered(manager: AbstractAsyncContextManager[AsyncStream]) -> Iterator[Stream]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(manager) as stream,
    ):
        yield cast("Stream", _AwaitedStream(portal, stream))


class _AwaitedStream:
    def __init__(self, portal: BlockingPortal, stream: AsyncStream) -> None:
        self._portal = portal
        self._stream = stream

    def __iter__(self) -> Iterator[TokenEvent]:
        return self

    def __next__(self) -> TokenEvent:
        event = self._portal.call(_next, self._stream)
        if event is None:
            raise StopIteration
        return event

    @property
    def text_stream(self) -> Iterator[str]:
        return iter(self._portal.call(_collected, self._stream.text_stream))

    def until_done(self) -> Any:
        return self._portal.call(self._stream.until_done)

    def close(self) -> None:
        self._portal.call(self._stream.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


async def _next(stream: AsyncStream) -> TokenEvent | None:
    return await anext(stream, None)
