"""The end of a request's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefixmux_server.errors import DeadlineExceeded


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Raises `DeadlineExceeded` when it is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise too_late() from error


def too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The request was not done within its timeout_s, or the server's limit; ask for less or"
        " wait longer."
    )
