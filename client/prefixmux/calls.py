"""Every call of the contract as a value: what to send and how to read the answer.

Pure functions; nothing here sends, waits or retries, so that any sender (blocking or not) shares
them. A `Call` names files by path: each attempt opens them anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from prefixmux.errors import APIResponseError, InvalidArgumentError
from prefixmux.requests import GenerateRequest
from prefixmux.stored import Task, TaskPage, Version, VersionPage
from prefixmux.types import (
    Answer,
    BatchResponse,
    BatchRow,
    GenerateResponse,
    Health,
    ModelInfo,
    ServerVersion,
)

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

MAX_BATCH_ROWS = 256
# Below the server's default limit of 1 MiB for a body, with room for the frame around the rows.
MAX_BATCH_BYTES = 1_000_000


@dataclass(frozen=True)
class Call(Generic[T]):
    """`repeatable`: doing it twice is the same as once, so it may be sent again after any failure.

    `accept` lists error statuses whose body `parse` reads like a success.
    """

    method: str
    path: str
    parse: Callable[[httpx2.Response], T]
    json: object = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    repeatable: bool = False
    accept: frozenset[int] = frozenset()


def generate(request: GenerateRequest) -> Call[GenerateResponse]:
    return Call("POST", "/generate", partial(_read, GenerateResponse), json=request.body())


def generate_batch(bodies: Sequence[Mapping[str, object]]) -> Call[tuple[BatchRow, ...]]:
    read = partial(_read_rows, len(bodies))
    return Call("POST", "/generate/batch", read, json={"requests": list(bodies)})


def batches(
    requests: Iterable[GenerateRequest | Mapping[str, object]],
) -> Iterator[tuple[Mapping[str, object], ...]]:
    """Rows in order, cut so that each piece is one allowed batch call."""
    piece: list[Mapping[str, object]] = []
    size = 0
    for request in requests:
        body = request.body() if isinstance(request, GenerateRequest) else request
        cost = len(json.dumps(body))
        if piece and (len(piece) == MAX_BATCH_ROWS or size + cost > MAX_BATCH_BYTES):
            yield tuple(piece)
            piece, size = [], 0
        piece.append(body)
        size += cost
    if piece:
        yield tuple(piece)


def upload(form: Mapping[str, str], files: Mapping[str, Path]) -> Call[Version]:
    """Repeatable: the same content for the same task answers with the version that holds it."""
    read = partial(_read, Version)
    return Call("POST", "/prefixes", read, form=form, files=files, repeatable=True)


def store(body: Mapping[str, object]) -> Call[Version]:
    """An upload without files: a text, examples, a composition. Repeatable, as `upload` is."""
    return Call("POST", "/prefixes", partial(_read, Version), json=body, repeatable=True)


def list_tasks(limit: int | None, cursor: str | None, query: str | None) -> Call[TaskPage]:
    params = _given(limit=limit, cursor=cursor, query=query)
    return Call("GET", "/prefixes", partial(_read, TaskPage), params=params, repeatable=True)


def get_task(task_id: str) -> Call[Task]:
    return Call("GET", _task_path(task_id), partial(_read, Task), repeatable=True)


def list_versions(task_id: str, limit: int | None, cursor: str | None) -> Call[VersionPage]:
    path = f"{_task_path(task_id)}/versions"
    params = _given(limit=limit, cursor=cursor)
    return Call("GET", path, partial(_read, VersionPage), params=params, repeatable=True)


def get_version(task_id: str, version: int) -> Call[Version]:
    return Call("GET", _version_path(task_id, version), partial(_read, Version), repeatable=True)


def get_file(task_id: str, version: int) -> Call[bytes]:
    path = f"{_version_path(task_id, version)}/file"
    return Call("GET", path, lambda response: response.content, repeatable=True)


def activate(task_id: str, version: int) -> Call[Task]:
    path = f"{_task_path(task_id)}/activate"
    return Call("POST", path, partial(_read, Task), json={"version": version}, repeatable=True)


def delete(task_id: str, version: int | None) -> Call[None]:
    """Not repeatable: a second deletion answers 404, which would hide that the first one worked."""
    path = _task_path(task_id) if version is None else _version_path(task_id, version)
    return Call("DELETE", path, lambda response: None)


def model() -> Call[ModelInfo]:
    return Call("GET", "/model", partial(_read, ModelInfo), repeatable=True)


def server_version() -> Call[ServerVersion]:
    return Call("GET", "/version", partial(_read, ServerVersion), repeatable=True)


def health() -> Call[Health]:
    return Call("GET", "/health/ready", _read_health, repeatable=True, accept=frozenset({503}))


def _given(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _task_path(task_id: str) -> str:
    # A path of dots alone would be normalised away and address another route.
    if not task_id.strip("."):
        raise InvalidArgumentError("task_id must not be empty nor dots alone.")
    return f"/prefixes/{quote(task_id, safe='')}"


def _version_path(task_id: str, version: int) -> str:
    return f"{_task_path(task_id)}/versions/{version}"


def _read(answer: type[A], response: httpx2.Response) -> A:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        raise APIResponseError(
            f"{response.request.url} answered {response.status_code}, but not with a"
            f" {answer.__name__}; is it a prefixmux server of this version?"
        ) from error


def _read_rows(count: int, response: httpx2.Response) -> tuple[BatchRow, ...]:
    rows = _read(BatchResponse, response).results
    if len(rows) != count:
        raise APIResponseError(f"The server answered {len(rows)} of {count} rows.")
    return rows


def _read_health(response: httpx2.Response) -> Health:
    try:
        body = response.json()
    except ValueError:
        body = {}
    fields = body if isinstance(body, dict) else {}
    ready = response.is_success
    named = {"status": "ready" if ready else "unavailable"}
    return Health.model_validate(named | fields | {"ready": ready})
