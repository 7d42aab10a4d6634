"""Sends calls over an HTTP client, blocking or awaited; the two differ in nothing else.

Waiting and trying again are decided by `Attempts`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import httpx2

from prefixmux.attempts import Attempts
from prefixmux.call import Call, Sink
from prefixmux.retry import RetryPolicy
from prefixmux.wire import NOT_GIVEN, NotGiven, Target

T = TypeVar("T")


class Sender:
    """`sleep` is the only way it waits."""

    def __init__(
        self,
        http: httpx2.Client,
        target: Target,
        policy: RetryPolicy,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.target = target
        self._http = http
        self._policy = policy
        self._sleep = sleep

    def varied(
        self, timeout: float | NotGiven | None = NOT_GIVEN, max_retries: int | NotGiven = NOT_GIVEN
    ) -> Sender:
        """One over the same connections that waits or tries again for longer or shorter."""
        target, policy = self.target.within(timeout), self._policy.of(max_retries)
        return Sender(self._http, target, policy, self._sleep)

    def send(self, call: Call[T]) -> T:
        """The parsed answer; raises APIConnectionError, APIStatusError or APIResponseError."""
        return call.parse(self.answer(call, stream=False))

    def answer(self, call: Call[T], *, stream: bool) -> httpx2.Response:
        """The accepted answer; with `stream` its body is unread, and the caller closes it."""
        attempts = Attempts(call, self.target, self._policy)
        while True:
            try:
                response = self._attempt(call, stream=stream)
            except httpx2.RequestError as error:
                delay = attempts.failed(error)
            else:
                if attempts.accepts(response):
                    return response
                delay = attempts.refused(response)
            self._sleep(delay)

    def _attempt(self, call: Call[T], *, stream: bool) -> httpx2.Response:
        """Read whole, unless it is a success that goes elsewhere."""
        with self.target.request(self._http, call) as request:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success or not (stream or call.sink):
                    response.read()
                elif call.sink:
                    self._pour(response, call.sink)
            except BaseException:
                response.close()
                raise
            return response

    def _pour(self, response: httpx2.Response, sink: Sink) -> None:
        sink.begin()
        for piece in response.iter_bytes():
            sink.write(piece)


class AsyncSender:
    """`sleep` is the only way it waits."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        target: Target,
        policy: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.target = target
        self._http = http
        self._policy = policy
        self._sleep = sleep

    def varied(
        self, timeout: float | NotGiven | None = NOT_GIVEN, max_retries: int | NotGiven = NOT_GIVEN
    ) -> AsyncSender:
        target, policy = self.target.within(timeout), self._policy.of(max_retries)
        return AsyncSender(self._http, target, policy, self._sleep)

    async def send(self, call: Call[T]) -> T:
        return call.parse(await self.answer(call, stream=False))

    async def answer(self, call: Call[T], *, stream: bool) -> httpx2.Response:
        attempts = Attempts(call, self.target, self._policy)
        while True:
            try:
                response = await self._attempt(call, stream=stream)
            except httpx2.RequestError as error:
                delay = attempts.failed(error)
            else:
                if attempts.accepts(response):
                    return response
                delay = attempts.refused(response)
            await self._sleep(delay)

    async def _attempt(self, call: Call[T], *, stream: bool) -> httpx2.Response:
        with self.target.request(self._http, call) as request:
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success or not (stream or call.sink):
                    await response.aread()
                elif call.sink:
                    await self._pour(response, call.sink)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
                raise
            return response

    async def _pour(self, response: httpx2.Response, sink: Sink) -> None:
        sink.begin()
        async for piece in response.aiter_bytes():
            sink.write(piece)
