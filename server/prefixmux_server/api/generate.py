"""`/generate` and `/generate/batch`. A client that leaves takes its work with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from prefixmux_server.api.http import problems, written
from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.presence import while_connected
from prefixmux_server.api.http.sse import streaming
from prefixmux_server.api.http.tenancy import Generator
from prefixmux_server.api.schemas import BatchBody, ErrorDetail, GenerateBody, RowBody
from prefixmux_server.api.services import AppServices
from prefixmux_server.api.token_events import TokenEvents
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.generation.answer import Answer
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError

STREAMED = {
    "description": "With `stream`: events `token`, then one `done` (this answer) or `error`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
# What is said of a row, by name.
Row = Mapping[str, object]
REFUSALS = errors(400, 403, 404, 413, 415, 422, 429, 500, 503, 504)

router = APIRouter(route_class=StrictRoute, tags=["generate"])


class Done(BaseModel):
    """A row that was answered."""

    status: Literal[200] = 200
    response: Answer


class Failed(BaseModel):
    """A row that was refused; `status` is the one it would have had alone."""

    status: int
    error: ErrorDetail


class BatchAnswer(BaseModel):
    """In the order of the requests."""

    results: list[Done | Failed]


@router.post("/generate", response_model=Answer, responses={**REFUSALS, 200: STREAMED})
async def generate(
    request: Request, body: GenerateBody, tenant: Generator, services: AppServices
) -> Answer | Response:
    request_id: str = request.state.request_id
    asked = body.to_service(request_id)
    if body.stream:
        events = services.generation.stream(tenant, asked)
        return await streaming(request, services.lifecycle, events, TokenEvents(request_id))
    work = services.generation.generate(tenant, asked)
    answer = await while_connected(request, services.lifecycle, work)
    return await written.response(answer) if answer.is_large else answer


@router.post("/generate/batch", response_model=BatchAnswer, responses=REFUSALS)
async def generate_batch(
    request: Request, body: BatchBody, tenant: Generator, services: AppServices
) -> Response:
    request_id: str = request.state.request_id
    count = len(body.requests)
    rows = [_row(services.generation, tenant, row, request_id, count) for row in body.requests]
    results = await while_connected(request, services.lifecycle, _all(rows))
    return await written.response({"results": results})


async def _all(rows: Sequence[Coroutine[Any, Any, Row]]) -> list[Row]:
    """Cancelled together; an error that no row expects is the whole call's."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(row) for row in rows]
    return [task.result() for task in tasks]


async def _row(
    service: GenerationService, tenant: Tenant, row: object, request_id: str, rows: int
) -> Row:
    """As `Done` or `Failed` say."""
    try:
        asked = RowBody.model_validate(row).to_service(request_id, rows)
        return {"status": 200, "response": await service.generate(tenant, asked)}
    except (PrefixmuxServerError, StoreError, ValidationError) as error:
        failure = problems.typed(error)
        return {"status": failure.http_status, "error": problems.detail(failure, request_id)}
