"""The calls about rows and about the server; `prefix_calls` has those about what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import quote

import httpx2

from prefixmux.about import Health, ModelInfo, ServerVersion
from prefixmux.account import Timeline, UsageReport
from prefixmux.call import Call, reading
from prefixmux.errors import APIResponseError, InvalidArgumentError
from prefixmux.requests import GenerateRequest, ScoreRequest
from prefixmux.types import BatchResponse, BatchRow, GenerateResponse, ScoreResponse

MAX_BATCH_ROWS = 256
# Below the server's default limit of 1 MiB for a body, with room for the frame around the rows.
MAX_BATCH_BYTES = 1_000_000


def generate(request: GenerateRequest) -> Call[GenerateResponse]:
    """Repeatable: it costs the server's time again, but changes nothing there."""
    parse = reading(GenerateResponse)
    return Call("POST", "/generate", parse, json=request.body(), repeatable=True)


def stream(request: GenerateRequest) -> Call[httpx2.Response]:
    """Repeatable until the answer has begun; what it says is read by `stream.EventReader`."""
    return Call(
        "POST",
        "/generate",
        lambda response: response,
        json=request.body() | {"stream": True},
        headers={"accept": "text/event-stream"},
        repeatable=True,
    )


def generate_batch(bodies: Sequence[Mapping[str, object]]) -> Call[tuple[BatchRow, ...]]:
    parse = partial(_rows, len(bodies))
    body = {"requests": list(bodies)}
    return Call("POST", "/generate/batch", parse, json=body, repeatable=True)


def batches(
    requests: Iterable[GenerateRequest | Mapping[str, object]],
) -> Iterator[tuple[Mapping[str, object], ...]]:
    """Rows in order, cut so that each piece is one allowed batch call."""
    piece: list[Mapping[str, object]] = []
    size = 0
    for request in requests:
        body = request.body() if isinstance(request, GenerateRequest) else request
        cost = _cost(body)
        if piece and (len(piece) == MAX_BATCH_ROWS or size + cost > MAX_BATCH_BYTES):
            yield tuple(piece)
            piece, size = [], 0
        piece.append(body)
        size += cost
    if piece:
        yield tuple(piece)


def _cost(body: Mapping[str, object]) -> int:
    try:
        return len(json.dumps(body))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"A row is not expressible as JSON: {error}") from error


def score(request: ScoreRequest) -> Call[ScoreResponse]:
    return Call("POST", "/score", reading(ScoreResponse), json=request.body(), repeatable=True)


def usage() -> Call[UsageReport]:
    return Call("GET", "/usage", reading(UsageReport), repeatable=True)


def timeline(request_id: str) -> Call[Timeline]:
    if not request_id.strip("."):
        raise InvalidArgumentError("request_id must not be empty nor dots alone.")
    path = f"/requests/{quote(request_id, safe='')}/timeline"
    return Call("GET", path, reading(Timeline), repeatable=True)


def model() -> Call[ModelInfo]:
    return Call("GET", "/model", reading(ModelInfo), repeatable=True)


def server_version() -> Call[ServerVersion]:
    return Call("GET", "/version", reading(ServerVersion), repeatable=True)


def health() -> Call[Health]:
    return Call("GET", "/health/ready", _health, repeatable=True, accept=frozenset({503}))


def _rows(count: int, response: httpx2.Response) -> tuple[BatchRow, ...]:
    answer = reading(BatchResponse)(response)
    if len(answer.results) != count:
        raise APIResponseError(f"The server answered {len(answer.results)} of {count} rows.")
    for row in answer.results:
        if row.response is not None:
            row.response.named(answer.request_id)
    return answer.results


def _health(response: httpx2.Response) -> Health:
    try:
        body = response.json()
    except ValueError:
        body = {}
    fields = body if isinstance(body, dict) else {}
    ready = response.is_success
    named = {"status": "ready" if ready else "unavailable"}
    health = Health.model_validate(named | fields | {"ready": ready})
    return health.named(response.headers.get("x-request-id"))
