"""What the events of a streamed answer say. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from pydantic import ValidationError

from prefixmux.answer import Wire
from prefixmux.errors import APIConnectionError, APIResponseError, PrefixmuxError
from prefixmux.statuses import status_of
from prefixmux.types import ErrorAnswer, GenerateResponse, TokenEvent
from prefixmux.wire import Target

W = TypeVar("W", bound=Wire)


class EventReader:
    """Of one answer; told each event in order, and that nothing follows."""

    def __init__(self, response: httpx2.Response, target: Target) -> None:
        self.request_id: str | None = response.headers.get("x-request-id")
        self.response: GenerateResponse | None = None
        self.events = httpx2.EventSource(response, max_event_size=None)
        self._target = target

    def take(self, event: httpx2.ServerSentEvent) -> TokenEvent | None:
        """The next tokens; None when the event says something else. Raises what `error` says."""
        match event.event:
            case "token":
                return self._parse(TokenEvent, event)
            case "done":
                self.response = self._parse(GenerateResponse, event).named(self.request_id)
            case "error":
                error = self._parse(ErrorAnswer, event).error
                known = error.model_copy(update={"request_id": error.request_id or self.request_id})
                raise known.to_exception(status_of(error.code))
        return None

    def whole(self) -> GenerateResponse:
        if self.response is None:
            raise PrefixmuxError("The stream has not ended yet: its answer comes last.")
        return self.response

    def ended(self) -> None:
        """To be told that nothing follows."""
        if self.response is None:
            raise APIConnectionError(
                f"The stream from {self._target.address} was cut before its last event."
            )

    @contextmanager
    def failures(self) -> Iterator[None]:
        """What the connection raises, as this package's errors."""
        try:
            yield
        except httpx2.SSEError as error:
            raise APIResponseError(
                f"{self._target.address} answered with something else than a stream;"
                " is it a prefixmux server of this version?"
            ) from error
        except httpx2.RequestError as error:
            raise self._target.failure(error) from error

    def _parse(self, kind: type[W], event: httpx2.ServerSentEvent) -> W:
        try:
            return kind.model_validate_json(event.data)
        except ValidationError as error:
            raise APIResponseError(
                f"The stream from {self._target.address} has an event {event.event!r} that"
                " this version cannot read."
            ) from error
