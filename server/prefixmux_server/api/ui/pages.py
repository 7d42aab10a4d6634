"""The pages: each is whole without a script; scripts add what moves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse

from prefixmux_server.api.http.paths import PathTask
from prefixmux_server.api.http.query import OnlyDeclared
from prefixmux_server.api.http.tenancy import CurrentTenant, Generator, Reader
from prefixmux_server.api.http.values import TaskId
from prefixmux_server.api.services import AppServices
from prefixmux_server.api.ui.identity import ROOT
from prefixmux_server.api.ui.rendering import page

LIMIT = 50
# Browsers open six connections to a server that speaks HTTP/1.1, and each stream takes one.
MAX_COLUMNS = 6

router = APIRouter(prefix=ROOT, include_in_schema=False, dependencies=[OnlyDeclared])


class Place(BaseModel):
    """Where a list goes on."""

    cursor: Annotated[str, Field(max_length=512)] | None = None


class Search(Place):
    """`query`: part of a task's name."""

    query: Annotated[str, Field(max_length=64)] = ""


class Columns(BaseModel):
    """The tasks to begin with."""

    task: Annotated[list[TaskId], Field(max_length=MAX_COLUMNS)] = []


@router.get("")
async def tasks(
    request: Request,
    search: Annotated[Search, Query()],
    tenant: Reader,
    services: AppServices,
) -> Response:
    query = search.query.strip() or None
    found = await services.prefixes.list_tasks(tenant, LIMIT, search.cursor, query)
    return page(
        request.scope,
        "tasks.html",
        found=found,
        search=search,
        max_upload_bytes=services.max_upload_bytes,
    )


@router.get("/")
async def slash(tenant: CurrentTenant) -> Response:
    """What people type."""
    return RedirectResponse(ROOT, 308)


@router.get("/tasks/{task_id}")
async def task(
    request: Request,
    task_id: PathTask,
    place: Annotated[Place, Query()],
    tenant: Reader,
    services: AppServices,
) -> Response:
    found = await services.prefixes.task(tenant, task_id)
    versions = await services.prefixes.versions(tenant, task_id, LIMIT, place.cursor)
    others = [version for version in versions.items if version.version != found.active_version]
    first = [found.active] if found.active and place.cursor is None else []
    return page(
        request.scope, "task.html", task=found, shown=first + others, versions=versions, place=place
    )


@router.get("/playground")
async def playground(
    request: Request,
    columns: Annotated[Columns, Query()],
    tenant: Generator,
    services: AppServices,
) -> Response:
    ready = services.engine.ready
    return page(
        request.scope,
        "playground.html",
        columns=columns.task,
        max_columns=MAX_COLUMNS,
        ids_only=ready is not None and ready.tokenizer is None,
    )


@router.get("/live")
async def live(request: Request, tenant: Reader) -> Response:
    return page(request.scope, "live.html")
