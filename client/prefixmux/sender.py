"""Sends calls over a blocking HTTP client, waiting and trying again as the policy says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import httpx2

from prefixmux.calls import Call
from prefixmux.retry import RetryPolicy
from prefixmux.wire import Target, status_error

T = TypeVar("T")
logger = logging.getLogger("prefixmux")


class Sender:
    """`sleep` is the only way it waits."""

    def __init__(
        self,
        http: httpx2.Client,
        target: Target,
        policy: RetryPolicy,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = http
        self._target = target
        self._policy = policy
        self._sleep = sleep

    def send(self, call: Call[T]) -> T:
        """The parsed answer; raises APIConnectionError, APIStatusError or APIResponseError."""
        for attempt in count():
            try:
                response = self._attempt(call)
            except httpx2.RequestError as error:
                delay = self._policy.after_error(error, attempt, repeatable=call.repeatable)
                if delay is None:
                    raise self._target.failure(error) from error
            else:
                if response.is_success or response.status_code in call.accept:
                    return call.parse(response)
                delay = self._policy.after_status(response, attempt, repeatable=call.repeatable)
                if delay is None:
                    raise status_error(response)
            logger.debug("%s %s: trying again in %.2f s", call.method, call.path, delay)
            self._sleep(delay)
        raise AssertionError("unreachable: the policy ends every loop")

    def _attempt(self, call: Call[T]) -> httpx2.Response:
        with self._target.request(self._http, call) as request:
            return self._http.send(request)
