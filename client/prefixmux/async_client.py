"""The awaited client: `Client`, method by method."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx2

from prefixmux import calls
from prefixmux.about import Health, ModelInfo, ServerVersion
from prefixmux.account import Timeline, UsageReport
from prefixmux.async_prefixes import AsyncPrefixes
from prefixmux.pieces import in_order
from prefixmux.requests import GenerateRequest, Parameters, Part, ScoreRequest, TokenInput
from prefixmux.retry import RetryPolicy
from prefixmux.sender import AsyncSender
from prefixmux.stream import AsyncStream
from prefixmux.types import BatchRow, GenerateResponse, ScoreResponse
from prefixmux.wire import NOT_GIVEN, NotGiven, Target


class AsyncClient:
    """As `Client`; every method has the same arguments, meaning and exceptions, awaited."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = 600,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        target = Target.resolve(base_url, api_key, timeout, http_client)
        http = httpx2.AsyncClient() if http_client is None else http_client
        self._owned = http if http_client is None else None
        self._sender = AsyncSender(http, target, RetryPolicy(max_retries))
        self.prefixes = AsyncPrefixes(self._sender)

    @property
    def base_url(self) -> str:
        """Where the server is; without a password that the URL may hold."""
        return self._sender.target.address

    @property
    def has_key(self) -> bool:
        """Whether calls name a tenant by its key."""
        return "authorization" in self._sender.target.headers

    def with_options(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
    ) -> Self:
        """The same client, over the same connections, with other patience."""
        other = object.__new__(type(self))
        other._owned = None
        other._sender = self._sender.varied(timeout, max_retries)
        other.prefixes = AsyncPrefixes(other._sender)
        return other

    async def generate(
        self,
        task_id: str | None,
        input: TokenInput,
        *,
        version: int | None = None,
        decoder_input: TokenInput | None = None,
        compose: Sequence[Part] = (),
        timeout: float | NotGiven | None = NOT_GIVEN,
        **parameters: Unpack[Parameters],
    ) -> GenerateResponse:
        """As `Client.generate`."""
        request = GenerateRequest(task_id, input, version, parameters, decoder_input, compose)
        return await self._sender.varied(timeout).send(calls.generate(request))

    def stream(
        self,
        task_id: str | None,
        input: TokenInput,
        *,
        version: int | None = None,
        decoder_input: TokenInput | None = None,
        compose: Sequence[Part] = (),
        timeout: float | NotGiven | None = NOT_GIVEN,
        **parameters: Unpack[Parameters],
    ) -> AbstractAsyncContextManager[AsyncStream]:
        """As `Client.stream`: `async with client.stream(...) as stream`."""
        request = GenerateRequest(task_id, input, version, parameters, decoder_input, compose)
        return self._stream(request, self._sender.varied(timeout))

    @asynccontextmanager
    async def _stream(
        self, request: GenerateRequest, sender: AsyncSender
    ) -> AsyncIterator[AsyncStream]:
        response = await sender.answer(calls.stream(request), stream=True)
        stream = AsyncStream(response, sender.target)
        try:
            yield stream
        finally:
            await stream.close()

    async def generate_many(
        self,
        requests: Iterable[GenerateRequest | Mapping[str, object]],
        *,
        max_concurrency: int = 4,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> list[BatchRow]:
        """As `Client.generate_many`, with up to `max_concurrency` calls under way at once."""
        sender = self._sender.varied(timeout)
        jobs = (calls.generate_batch(bodies) for bodies in calls.batches(requests))
        pieces = await in_order(sender.send, jobs, max_concurrency)
        return [row for rows in pieces for row in rows]

    async def score(
        self,
        task_id: str | None,
        input: TokenInput,
        targets: Sequence[TokenInput],
        *,
        version: int | None = None,
        decoder_input: TokenInput | None = None,
        compose: Sequence[Part] = (),
        timeout_s: float | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> ScoreResponse:
        """As `Client.score`."""
        request = ScoreRequest(task_id, input, targets, version, decoder_input, compose, timeout_s)
        return await self._sender.varied(timeout).send(calls.score(request))

    async def usage(self) -> UsageReport:
        """As `Client.usage`."""
        return await self._sender.send(calls.usage())

    async def timeline(self, request_id: str) -> Timeline:
        """As `Client.timeline`."""
        return await self._sender.send(calls.timeline(request_id))

    async def model(self) -> ModelInfo:
        """As `Client.model`."""
        return await self._sender.send(calls.model())

    async def version(self) -> ServerVersion:
        return await self._sender.send(calls.server_version())

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._sender.send(calls.health())

    async def close(self) -> None:
        if self._owned is not None:
            await self._owned.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
