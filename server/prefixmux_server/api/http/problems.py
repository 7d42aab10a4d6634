"""From what went wrong to what the client reads: the one place that writes error bodies.

Only texts written for clients leave here: those of our error trees and a fixed sentence for
everything else. Nothing is taken from an unexpected exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from prefixmux_server.api.openai import errors as openai
from prefixmux_server.api.ui import errors as ui
from prefixmux_server.errors import (
    InternalError,
    InvalidParameter,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PrefixmuxServerError,
    Relayed,
)
from prefixmux_store.errors import StoreError

MAX_PARAM = 128
# Text or ids: the path into such a union says nothing to a client. By how much of it does.
UNIONS = {"input": 1, "decoder_input": 1, "targets": 2}


def typed(error: Exception) -> PrefixmuxServerError:
    """The error of our tree that stands for any exception."""
    if isinstance(error, PrefixmuxServerError):
        return error
    if isinstance(error, StoreError):
        return Relayed(error.code, error.message, param=error.param, reason=error.reason)
    if isinstance(error, RequestValidationError):
        return of_validation([_inside_body(entry) for entry in error.errors()])
    if isinstance(error, ValidationError):
        return of_validation(error.errors(include_url=False, include_input=False))
    if isinstance(error, HTTPException):
        return _of_http(error)
    return InternalError("The server failed; the request_id finds the cause in its log.")


def detail(error: PrefixmuxServerError, request_id: str) -> dict[str, Any]:
    """What stands under `error`."""
    fields: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "request_id": request_id,
    }
    if error.reason is not None:
        fields["reason"] = error.reason
    return fields


def response(
    error: PrefixmuxServerError, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    return Problem(error, request_id, {**(headers or {}), **error.headers})


class Problem(Response):
    """Written in the words of the API that it is sent by, which its path tells, or as a page."""

    def __init__(
        self, error: PrefixmuxServerError, request_id: str, headers: Mapping[str, str]
    ) -> None:
        body = json.dumps({"error": detail(error, request_id)})
        super().__init__(body, error.http_status, headers, "application/json")
        self._told = (error, request_id, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if openai.speaks(scope["path"]):
            await openai.response(*self._told, scope["path"])(scope, receive, send)
        elif ui.speaks(scope):
            await ui.response(*self._told, scope)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> PrefixmuxServerError:
    """The first thing wrong. Unions name their members in the path; those are cut off."""
    first = errors[0]
    path: tuple[str | int, ...] = tuple(first["loc"])
    if path and path[0] in UNIONS:
        path = path[: UNIONS[path[0]]]
    kind = InvalidParameter if path[:1] == ("parameters",) else InvalidRequest
    return kind(_sentence(first), param=param_of(*path))


def param_of(*path: str | int) -> str | None:
    """A dotted path in ASCII, bounded: the client chose its names. None for the empty path."""
    dotted = ".".join(map(str, path))
    return dotted.encode("ascii", "backslashreplace").decode()[:MAX_PARAM] or None


def _sentence(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        return "There is no such field; leave it out."
    if entry["type"] == "missing":
        return "This field is required."
    if entry["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "This must be a JSON object."
    if entry["type"] == "string_pattern_mismatch":
        return "A task_id is 1 to 64 of a-z, 0-9, '.', '_', '-', and starts with a-z or 0-9."
    if entry["type"] == "too_short":
        return "This must not be empty."
    return f"{entry['msg']}."


def _inside_body(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """FastAPI's paths begin with the part of the request: `body`, `query`, `path`."""
    return {**entry, "loc": tuple(entry["loc"])[1:]}


def _of_http(error: HTTPException) -> PrefixmuxServerError:
    if error.status_code == 404:
        return NotFound("There is no such path; see /docs.")
    if error.status_code == 405:
        return MethodNotAllowed("This path does not know the method; see /docs.")
    if error.status_code < 500:
        return InvalidRequest("The request could not be read; see /docs.")
    return InternalError("The server failed; the request_id finds the cause in its log.")
