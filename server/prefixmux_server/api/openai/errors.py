"""What went wrong, in the words that OpenAI's clients know: its shape, statuses and names.

Owns the dialect alone; which error it is was decided before. Beside OpenAI's fields stands our
`request_id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from prefixmux_server.api.http.documented import errors
from prefixmux_server.errors import PrefixmuxServerError

ROOT = "/v1"
# By status, after ours that stand for bad requests have become 400.
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
# Those that programs look for.
CODES: Mapping[str, str] = {
    "task_not_found": "model_not_found",
    "version_not_found": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
}
NO_MODEL = "There is no such model: take one that GET /v1/models names."
PARAMS: Mapping[str, str] = {
    "task_id": "model",
    "version": "model",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "prompt_logprobs": "logprobs",
}


class OpenAIErrorDetail(BaseModel):
    """`type` is one of OpenAI's kinds of errors."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class OpenAIErrorBody(BaseModel):
    """The body of every answer below `/v1` that is not a success."""

    error: OpenAIErrorDetail


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of a route, beside what any request may get before its route is found."""
    known = errors(400, 401, 403, 404, 413, 415, 429, 500, 503, 504)
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": OpenAIErrorBody, "description": known[status]["description"]}
        for status in sorted({400, 401, 403, 500, 503, *statuses})
    }
    # Without it FastAPI would tell of a 422 of its own, which no route here answers.
    return told | {"4XX": {"model": OpenAIErrorBody, "description": "Any other refusal."}}


def speaks(path: str) -> bool:
    """Whether errors of this path are told in this dialect."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def response(
    error: PrefixmuxServerError, request_id: str, headers: Mapping[str, str], path: str
) -> Response:
    return Response(
        json.dumps(body(error, request_id, path)),
        status_code=status_of(error),
        headers=headers,
        media_type="application/json",
    )


def body(error: PrefixmuxServerError, request_id: str, path: str) -> dict[str, Any]:
    status, code = status_of(error), CODES.get(error.code, error.code)
    fields: dict[str, Any] = {
        "message": NO_MODEL if code == "model_not_found" else _renamed(error.message),
        "type": TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": "model" if code == "model_not_found" else _param(error.param, path),
        "code": code,
        "request_id": request_id,
    }
    if error.reason is not None:
        fields["reason"] = error.reason
    return {"error": fields}


def status_of(error: PrefixmuxServerError) -> int:
    """OpenAI knows no 422."""
    return 400 if error.http_status == 422 else error.http_status


def _param(param: str | None, path: str) -> str | None:
    if param is None:
        return None
    if param == "input":
        return "messages" if path.endswith("/chat/completions") else "prompt"
    name = param.removeprefix("parameters.")
    return PARAMS.get(name, name)


def _renamed(message: str) -> str:
    """A parameter by the name that the client gave it."""
    for ours in ("max_new_tokens", "min_new_tokens"):
        message = message.replace(ours, PARAMS[ours])
    return message
