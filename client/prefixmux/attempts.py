"""The attempts of one call: which answer ends them, and how long to wait before the next.

The one place that turns failures into exceptions; a sender only sends and waits.
"""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

import httpx2

from prefixmux.call import Call
from prefixmux.retry import RetryPolicy
from prefixmux.wire import Target, status_error

T = TypeVar("T")
logger = logging.getLogger("prefixmux")


class Attempts(Generic[T]):
    """Told of each attempt's end; answers seconds to wait, or raises what the caller gets."""

    def __init__(self, call: Call[T], target: Target, policy: RetryPolicy) -> None:
        self._call = call
        self._target = target
        self._policy = policy
        self._made = 0

    def accepts(self, response: httpx2.Response) -> bool:
        return response.is_success or response.status_code in self._call.accept

    def failed(self, error: httpx2.RequestError) -> float:
        """Raises APIConnectionError when it was the last."""
        delay = self._policy.after_error(error, self._made, repeatable=self._call.repeatable)
        if delay is None:
            raise self._target.failure(error) from error
        return self._again(delay)

    def refused(self, response: httpx2.Response) -> float:
        """Of an answer whose body was read. Raises APIStatusError when it was the last."""
        delay = self._policy.after_status(response, self._made, repeatable=self._call.repeatable)
        if delay is None:
            raise status_error(response)
        return self._again(delay)

    def _again(self, delay: float) -> float:
        self._made += 1
        logger.debug("%s %s: trying again in %.2f s", self._call.method, self._call.path, delay)
        return delay
