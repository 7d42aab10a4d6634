"""Work that is worth doing only while its client is there and the server stays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from prefixmux_server.service.lifecycle import Lifecycle, draining

T = TypeVar("T")


async def while_connected(
    request: Request, lifecycle: Lifecycle, work: Coroutine[Any, Any, T]
) -> T:
    """The result of `work`, whose request's body must have been read.

    When the client leaves first, or the drain has to end, the work is cancelled, has let go of
    what it held when this returns, and `ClientDisconnect` or `Draining` is raised.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_gone(request))
    cutting = asyncio.ensure_future(lifecycle.until_cut())
    futures = (working, leaving, cutting)
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            raise ClientDisconnect
        raise draining()
    finally:
        # The outcome of the work is to name what its client got.
        working.cancel("draining" if cutting.done() and not leaving.done() else None)
        leaving.cancel()
        cutting.cancel()
        await asyncio.gather(*futures, return_exceptions=True)


async def until_gone(request: Request) -> None:
    """The client has left. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
