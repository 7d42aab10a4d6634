"""The blocking client: what a caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx2

from prefixmux import calls
from prefixmux.about import Health, ModelInfo, ServerVersion
from prefixmux.account import Timeline, UsageReport
from prefixmux.prefixes import Prefixes
from prefixmux.requests import GenerateRequest, Parameters, Part, ScoreRequest, TokenInput
from prefixmux.retry import RetryPolicy
from prefixmux.sender import Sender
from prefixmux.stream import Stream
from prefixmux.types import BatchRow, GenerateResponse, ScoreResponse
from prefixmux.wire import NOT_GIVEN, NotGiven, Target


class Client:
    """A prefixmux server, seen by one tenant. Safe to share between threads.

    `base_url` falls back to PREFIXMUX_BASE_URL, then http://127.0.0.1:8000; `api_key` to
    PREFIXMUX_API_KEY. `timeout` is the longest silence in seconds, None for ever (connecting: at
    most 5). `max_retries` counts attempts after the first. A given `http_client` stays the
    caller's to close.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = 600,
        max_retries: int = 2,
        http_client: httpx2.Client | None = None,
    ) -> None:
        target = Target.resolve(base_url, api_key, timeout, http_client)
        http = httpx2.Client() if http_client is None else http_client
        self._owned = http if http_client is None else None
        self._sender = Sender(http, target, RetryPolicy(max_retries))
        self.prefixes = Prefixes(self._sender)

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
        other.prefixes = Prefixes(other._sender)
        return other

    def generate(
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
        """Generate for one input (text or token ids) with a task's prefix.

        `task_id` None is the bare model, or the prefixes of `compose` (task ids, or pairs of task
        id and version) one behind another; `version` None is the active one. `decoder_input` is
        what an encoder-decoder model's decoder, or an infix, goes on with. `parameters` as in the
        contract (`max_new_tokens`, `temperature`, `stop`, `n`, `logprobs`, ...), None meaning left
        out. `timeout` overrides the client's.
        """
        request = GenerateRequest(task_id, input, version, parameters, decoder_input, compose)
        return self._sender.varied(timeout).send(calls.generate(request))

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
    ) -> AbstractContextManager[Stream]:
        """As `generate`, but told as it is made; leaving the `with` gives up what is left.

        The request is sent on entering; until its answer begins it may be sent again.
        """
        request = GenerateRequest(task_id, input, version, parameters, decoder_input, compose)
        return self._stream(request, self._sender.varied(timeout))

    @contextmanager
    def _stream(self, request: GenerateRequest, sender: Sender) -> Iterator[Stream]:
        response = sender.answer(calls.stream(request), stream=True)
        stream = Stream(response, sender.target)
        try:
            yield stream
        finally:
            stream.close()

    def generate_many(
        self,
        requests: Iterable[GenerateRequest | Mapping[str, object]],
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> list[BatchRow]:
        """Rows of any mix of tasks, answered in order: one `BatchRow` for each request.

        More rows than one call may carry are sent in several. A refused row is that row's own
        (`row.unwrap()` raises it); a refused or unanswered call raises here.
        """
        sender = self._sender.varied(timeout)
        return [
            row
            for bodies in calls.batches(requests)
            for row in sender.send(calls.generate_batch(bodies))
        ]

    def score(
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
        """How likely each of 1 to 64 targets is after the input: `answer.best` classifies.

        `timeout_s` is the server's deadline; the rest as in `generate`.
        """
        request = ScoreRequest(task_id, input, targets, version, decoder_input, compose, timeout_s)
        return self._sender.varied(timeout).send(calls.score(request))

    def usage(self) -> UsageReport:
        """What this key's tenant stores and has used, and its limits."""
        return self._sender.send(calls.usage())

    def timeline(self, request_id: str) -> Timeline:
        """Where a finished request's time went; by `response.id` or `response.request_id`."""
        return self._sender.send(calls.timeline(request_id))

    def model(self) -> ModelInfo:
        """The resident model and what can be uploaded for it."""
        return self._sender.send(calls.model())

    def version(self) -> ServerVersion:
        return self._sender.send(calls.server_version())

    def health(self) -> Health:
        """Whether the server takes requests; not being ready is an answer, not an error."""
        return self._sender.send(calls.health())

    def close(self) -> None:
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
