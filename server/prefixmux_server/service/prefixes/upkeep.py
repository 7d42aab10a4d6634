"""Frees the disk of what was deleted, now and then, while the server runs.

Knows when; the store knows what may go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from prefixmux_store.errors import StoreError
from prefixmux_store.store import PrefixStore

PERIOD_SECONDS = 600.0
GRACE_SECONDS = 7200.0


def grace_of(max_request_seconds: float) -> float:
    """Twice the longest request: one that waits that long may still need a deleted file."""
    return max(GRACE_SECONDS, 2 * max_request_seconds)


@asynccontextmanager
async def collecting(
    store: PrefixStore, *, period: float = PERIOD_SECONDS, grace: float = GRACE_SECONDS
) -> AsyncIterator[None]:
    """While the body runs, collect once per period; a failure is logged and tried again later."""
    task = asyncio.create_task(_collect(store, period, grace))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _collect(store: PrefixStore, period: float, grace: float) -> None:
    log = structlog.get_logger("prefixmux.upkeep")
    while True:
        try:
            report = await asyncio.to_thread(store.gc, grace)
            log.info(
                "collected", blobs=report.blobs, bytes=report.bytes, temporary=report.temporary
            )
        except StoreError as error:
            log.error("collection failed", code=error.code)
        await asyncio.sleep(period)
