"""From a `Call` to an HTTP request, and from a failed answer to an exception.

Shared by every sender; holds where the server is and who asks, never a connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.metadata import version
from typing import IO, Final, TypeAlias, TypeVar

import httpx2
from pydantic import ValidationError

from prefixmux.answer import ErrorBody
from prefixmux.call import Call
from prefixmux.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    InvalidArgumentError,
)
from prefixmux.files import opened
from prefixmux.retry_after import retry_after
from prefixmux.statuses import class_of

T = TypeVar("T")
HttpClient: TypeAlias = httpx2.Client | httpx2.AsyncClient


class NotGiven(Enum):
    """Where None says something: for ever."""

    NOT_GIVEN = "not given"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
DEFAULT_BASE_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Target:
    """A server, the headers it is asked with, and how long it may take."""

    base_url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: httpx2.Timeout

    @property
    def address(self) -> str:
        """Where the server is, to be shown: a password in the URL is not."""
        return str(httpx2.URL(self.base_url).copy_with(userinfo=b""))

    @classmethod
    def resolve(
        cls,
        base_url: str | None,
        api_key: str | None,
        timeout: float | None,
        http_client: HttpClient | None,
    ) -> Target:
        """Arguments win over the given HTTP client, it over the environment, that over defaults."""
        own = str(http_client.base_url) if http_client is not None else ""
        url = base_url or own or os.environ.get("PREFIXMUX_BASE_URL") or DEFAULT_BASE_URL
        _check_url(url)
        key = api_key or os.environ.get("PREFIXMUX_API_KEY")
        headers = {"user-agent": f"prefixmux/{version('prefixmux')}", "accept": "application/json"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise InvalidArgumentError("api_key must be printable ASCII.")
            headers["authorization"] = f"Bearer {key}"
        return cls(url.rstrip("/"), headers, _timeout(timeout))

    def within(self, timeout: float | NotGiven | None) -> Target:
        """The same with another patience."""
        return self if timeout is NOT_GIVEN else replace(self, timeout=_timeout(timeout))

    @contextmanager
    def request(self, http: HttpClient, call: Call[T]) -> Iterator[httpx2.Request]:
        """The request of one attempt; its files are open inside the context only."""
        with ExitStack() as stack:
            yield self._build(http, call, opened(call.files, call.progress, stack))

    def _build(
        self, http: HttpClient, call: Call[T], files: Mapping[str, IO[bytes]]
    ) -> httpx2.Request:
        try:
            return http.build_request(
                call.method,
                self.base_url + call.path,
                json=call.json,
                params=dict(call.params) or None,
                data=dict(call.form) or None,
                files=_file_parts(files) or None,
                headers={**self.headers, **call.headers},
                timeout=self.timeout,
            )
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"The request is not expressible as JSON: {error}"
            ) from error

    def failure(self, error: httpx2.RequestError) -> APIConnectionError:
        """The exception for a call that got no answer."""
        if isinstance(error, httpx2.TimeoutException):
            return APITimeoutError(f"{self.address} did not answer in time.")
        return APIConnectionError(f"No answer from {self.address}: {error}.")


def status_error(response: httpx2.Response) -> APIStatusError:
    """The exception for an error answer, also one that is not prefixmux's own (a proxy's)."""
    error = _told(response) or _foreign(response)
    error.request_id = error.request_id or response.headers.get("x-request-id")
    error.retry_after = retry_after(response.headers.get("retry-after"), time.time())
    return error


def _told(response: httpx2.Response) -> APIStatusError | None:
    try:
        body = ErrorBody.model_validate(response.json()["error"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
    return body.to_exception(response.status_code)


def _foreign(response: httpx2.Response) -> APIStatusError:
    reason = response.reason_phrase or "no reason given"
    return class_of(response.status_code)(
        f"{reason} (the answer has no prefixmux error in it).", status_code=response.status_code
    )


def _check_url(url: str) -> None:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidArgumentError(f"base_url {url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidArgumentError(f"base_url {url!r} must begin with http:// or https://.")


def _timeout(seconds: float | None) -> httpx2.Timeout:
    connect = CONNECT_TIMEOUT_S if seconds is None else min(seconds, CONNECT_TIMEOUT_S)
    return httpx2.Timeout(seconds, connect=connect)


def _file_parts(files: Mapping[str, IO[bytes]]) -> dict[str, tuple[str, IO[bytes], str]]:
    # The part's own name stands for the file's: paths of this machine are not sent.
    return {name: (name, file, "application/octet-stream") for name, file in files.items()}
