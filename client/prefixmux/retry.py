"""When to send a call again, and after how long. Decides only; the sender waits.

Sent again: what never reached the server (no connection) and what it refused untouched (429, 503),
for every call; cut connections, timeouts and other passing failures (408, 500, 502, 504) only for
repeatable calls, which are all but deletions: generating twice costs, but changes nothing. An
answer that has begun to stream is never asked for again. The server's `x-should-retry` overrules
all this, and its `Retry-After` replaces the back-off.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx2

from prefixmux.retry_after import retry_after
from prefixmux.wire import NOT_GIVEN, NotGiven

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
# A server that asks for more is not obeyed by blocking the caller: the error is raised instead.
LONGEST_RETRY_AFTER_S = 120.0

NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
CUT = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError)
REFUSED_UNTOUCHED = frozenset({429, 503})
PASSING = frozenset({408, 500, 502, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """`attempt` counts from 0; every method answers seconds to wait, or None: give up."""

    max_retries: int = 2
    uniform: Callable[[], float] = random.random
    now: Callable[[], float] = time.time

    def of(self, max_retries: int | NotGiven) -> RetryPolicy:
        """The same with another patience."""
        return self if max_retries is NOT_GIVEN else replace(self, max_retries=max_retries)

    def after_error(
        self, error: httpx2.RequestError, attempt: int, *, repeatable: bool
    ) -> float | None:
        retry = isinstance(error, NEVER_SENT) or (repeatable and isinstance(error, CUT))
        return self._backoff(attempt) if retry and attempt < self.max_retries else None

    def after_status(
        self, response: httpx2.Response, attempt: int, *, repeatable: bool
    ) -> float | None:
        if attempt >= self.max_retries or not self._worth_it(response, repeatable=repeatable):
            return None
        asked = retry_after(response.headers.get("retry-after"), self.now())
        if asked is None:
            return self._backoff(attempt)
        return asked if asked <= LONGEST_RETRY_AFTER_S else None

    def _worth_it(self, response: httpx2.Response, *, repeatable: bool) -> bool:
        told = response.headers.get("x-should-retry", "").lower()
        if told in ("true", "false"):
            return bool(told == "true")
        status = response.status_code
        return status in REFUSED_UNTOUCHED or (repeatable and status in PASSING)

    def _backoff(self, attempt: int) -> float:
        """Doubling, capped, and up to a quarter shorter so that clients do not march in step."""
        return min(FIRST_DELAY_S * 2.0**attempt, LONGEST_DELAY_S) * (1 - self.uniform() / 4)
