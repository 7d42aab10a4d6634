"""How late the event loop is: every request waits for it, so none may hold it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

PERIOD_SECONDS = 0.05
# The last minute.
SAMPLES_KEPT = 1200


class LagSampler:
    """`observe` hears each sample, in seconds."""

    def __init__(self, observe: Callable[[float], None], period: float = PERIOD_SECONDS) -> None:
        self._observe = observe
        self._period = period
        self._samples: deque[float] = deque(maxlen=SAMPLES_KEPT)

    def quantile(self, share: float) -> float:
        """Of the last minute; 0 without a sample."""
        if not self._samples:
            return 0.0
        ordered = sorted(self._samples)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sample(self) -> None:
        while True:
            due = monotonic() + self._period  # finer than the loop's own clock
            await asyncio.sleep(self._period)
            late = max(monotonic() - due, 0.0)
            self._samples.append(late)
            self._observe(late)
